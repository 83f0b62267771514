//! A platform with a client, and the steps of a purchase.

use std::time::Duration;

use stampede::{
    client::{Client, Reply, With, new_key, new_order},
    platform::{Options, Platform},
};
use stampede_contracts::{
    OrderId,
    api::{self, NewHold, NewOrder, OrderState, PlaceState},
};
use stampede_testkit::eventually;

pub const PATIENCE: Duration = Duration::from_secs(30);
pub const GOOD_CARD: &str = "4242424242424242";

pub struct Stage {
    pub platform: Platform,
    pub client: Client,
}

impl Stage {
    pub async fn start(settings: &[&str]) -> Self {
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let platform = Platform::start(Options { settings, ..Options::default() }).await.unwrap();
        let client = Client::new(&platform.gateway_url).unwrap();
        Self { platform, client }
    }

    pub async fn token(&self) -> String {
        let session: api::Session = self.client.session(None).await.unwrap().json().unwrap();
        session.token
    }

    pub async fn show(&self, slug: &str) -> api::Show {
        let shows = self.client.shows().await.unwrap();
        let summary = shows.iter().find(|show| show.slug.contains(slug)).unwrap();
        self.client.show(summary.show_id, With::default()).await.unwrap().json().unwrap()
    }

    /// Waits in the lobby for a pass, if the show has one.
    pub async fn pass(&self, show: &api::Show, token: &str) -> Option<String> {
        if !show.summary.lobby {
            return None;
        }
        let place: api::Place = self.client.join(show.summary.show_id, token).await.unwrap().json().unwrap();
        let mut pass = place.pass;
        eventually(PATIENCE, async || {
            let now: api::Place = self.client.place(place.lobby_ticket, token).await.unwrap().json().unwrap();
            pass = now.pass;
            now.state == PlaceState::Admitted
        })
        .await;
        pass
    }

    pub async fn hold(&self, show: &api::Show, token: &str, quantity: u32) -> Reply {
        let pass = self.pass(show, token).await;
        let (key, wish) = (new_key(), best(show, quantity));
        let with = With::token(token).key(&key).pass(pass.as_deref());
        self.client.hold(show.summary.show_id, &wish, with).await.unwrap()
    }

    pub async fn new_order(&self, hold: &api::Hold, card: &str) -> NewOrder {
        let tokens = format!("{}/tokens", self.platform.tokens_url);
        let card = self.client.card_token(&tokens, card).await.unwrap();
        new_order(hold.hold_id, "Ada Lovelace", "ada@example.org", &card)
    }

    /// A purchase up to the answer to the order.
    pub async fn order(&self, show: &api::Show, token: &str, card: &str) -> Reply {
        let hold: api::Hold = self.hold(show, token, 2).await.json().unwrap();
        let order = self.new_order(&hold, card).await;
        let key = new_key();
        self.client.order(&order, With::token(token).key(&key)).await.unwrap()
    }

    pub async fn read(&self, order: OrderId, token: &str) -> api::Order {
        self.client.read_order(order, With::token(token)).await.unwrap().json().unwrap()
    }

    /// Whether a mail with all tickets of an order lies where a person can read it.
    pub fn mail_with(&self, order: &api::Order) -> bool {
        let mails = self.platform.state.mail().join("new");
        let mut mails = std::fs::read_dir(mails).into_iter().flatten().flatten();
        mails.any(|mail| {
            // Long lines are folded by the transfer encoding.
            let text = std::fs::read_to_string(mail.path()).unwrap_or_default();
            let text = text.replace("=\r\n", "").replace("=\n", "");
            order.tickets.iter().all(|ticket| text.contains(&ticket.ticket_id.to_string()))
        })
    }

    pub async fn becomes(&self, order: OrderId, token: &str, state: OrderState) {
        eventually(PATIENCE, async || self.read(order, token).await.state == state).await;
    }

    /// Waits until the catalog's copy says that so many seats of a show are free.
    pub async fn free_seats_become(&self, slug: &str, free: u64) {
        eventually(PATIENCE, async || free_seats(&self.show(slug).await) == free).await;
    }
}

pub fn best(show: &api::Show, quantity: u32) -> NewHold {
    NewHold { section: Some(show.sections[0].section_id), quantity: Some(quantity), seats: None }
}

pub fn free_seats(show: &api::Show) -> u64 {
    show.sections.iter().filter_map(|section| section.availability).map(|now| now.free).sum()
}
