//! A purchase through every service.

use stampede::{
    client::{Client, With, new_key, new_order},
    platform::{Options, Platform},
};
use stampede_contracts::api::{self, NewHold, OrderState};

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_buys_a_ticket() {
    let platform = Platform::start(Options::default()).await.unwrap();
    let client = Client::new(&platform.gateway_url).unwrap();
    let session: api::Session = client.session(None).await.unwrap().json().unwrap();
    let shows = client.shows().await.unwrap();
    let show = shows.iter().find(|show| !show.lobby).unwrap();
    let show: api::Show = client.show(show.show_id).await.unwrap().json().unwrap();

    let key = new_key();
    let wish = NewHold { section: Some(show.sections[0].section_id), quantity: Some(2), seats: None };
    let with = With::token(&session.token).key(&key);
    let hold: api::Hold = client.hold(show.summary.show_id, &wish, with).await.unwrap().json().unwrap();
    assert_eq!(hold.quantity, 2);

    let cards = client.test_cards().await.unwrap();
    let card = client.card_token(&cards.tokens_url, &cards.cards[0].card_number).await.unwrap();
    let order = new_order(hold.hold_id, "Ada Lovelace", "ada@example.org", &card);
    let key = new_key();
    let reply = client.order(&order, With::token(&session.token).key(&key)).await.unwrap();
    let order: api::Order = reply.json().unwrap();
    assert_eq!((reply.status.as_u16(), order.state), (201, OrderState::Confirmed));
    assert_eq!(order.tickets.len(), 2);
    platform.stop().await.unwrap();
}
