//! A platform with a client, and the steps of a purchase.

use std::time::Duration;

use reqwest::Method;
use stampede::{
    client::{Client, Reply, With, new_key, new_order},
    load::{self, Habits, Plan, Stop, Summary},
    platform::{Options, Platform},
    verify::{self, Sources},
};
use stampede_contracts::{
    OrderId, Timestamp,
    api::{self, NewHold, NewOrder, NewSection, NewShow, NewVenue, OrderState, PlaceState},
    event::Seating,
};
use stampede_testkit::eventually;
use tokio::sync::watch;

pub const PATIENCE: Duration = Duration::from_secs(60);
/// For a whole load, from its first buyer to the end of the last.
const LOAD_LIMIT: Duration = Duration::from_secs(240);
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

    /// A show without a lobby, made as an operator would, with places in sections of general admission.
    pub async fn general_admission(&self, slug: &str, places: &[u32]) -> api::Show {
        let sections = (1..).zip(places).map(|(number, places)| NewSection {
            name: format!("Field {number}"),
            price: 4_000,
            seating: Seating::GeneralAdmission(*places),
        });
        let show = NewShow {
            slug: slug.to_owned(),
            title: "A Field".to_owned(),
            venue: NewVenue { name: "Meadow".to_owned(), city: "Potsdam".to_owned() },
            starts_at: Timestamp::now() + Duration::from_secs(86_400),
            sale_opens_at: None,
            cancel_until: None,
            currency: "EUR".parse().unwrap(),
            sections: sections.collect(),
            lobby: None,
        };
        let operator = self.operator_token();
        let body = serde_json::to_vec(&show).unwrap();
        let with = With::token(&operator);
        let reply = self.client.send(Method::POST, "/v1/ops/shows", with, Some(body)).await.unwrap();
        assert_eq!(reply.status.as_u16(), 201, "{:?}", reply.problem());
        self.free_seats_become(slug, places.iter().map(|places| u64::from(*places)).sum()).await;
        self.show(slug).await
    }

    /// So many buyers at such a rate a second, for these shows or for all. Their history lies where `verify` finds it.
    pub fn plan(&self, shows: &[&str], buyers: u64, rate: f64, habits: Habits) -> Plan {
        Plan {
            url: self.platform.gateway_url.clone(),
            buyers,
            rate,
            shows: shows.iter().map(|show| (*show).to_owned()).collect(),
            duration: None,
            in_flight_max: 5_000,
            habits,
            seed: 7,
            operator_token: Some(self.operator_token()),
            tokens_url: None,
            history: self.platform.state.root().join("history/load.jsonl"),
            allow_remote: 0,
        }
    }

    /// Sends the buyers and does something to the platform meanwhile.
    pub async fn under_load(&self, plan: Plan, meanwhile: impl Future<Output = ()>) -> Summary {
        self.under_watched_load(plan, async |_sent_again| meanwhile.await).await
    }

    /// `meanwhile` can see how many requests were sent again because they broke off, a second late at most.
    pub async fn under_watched_load(
        &self,
        plan: Plan,
        meanwhile: impl AsyncFnOnce(watch::Receiver<u64>),
    ) -> Summary {
        let (tell, sent_again) = watch::channel(0);
        let load = async move {
            load::run(plan, &Stop::default(), move |report, _| {
                tell.send_replace(report.sent_again());
            })
            .await
        };
        let load = tokio::spawn(tokio::time::timeout(LOAD_LIMIT, load));
        meanwhile(sent_again).await;
        load.await.unwrap().unwrap().unwrap()
    }

    /// Waits until everything has come to rest, and then everything that must hold does: by all databases, by the
    /// provider's ledger, and by what the buyers of every load were told.
    pub async fn verify(&self) {
        let sources = Sources::of(&self.platform.state).await.unwrap();
        assert!(!sources.histories.is_empty(), "no load wrote its history where the verifier looks");
        let report = verify::verify(&sources, &verify::Options::default(), |_| {}).await.unwrap();
        assert!(report.holds(), "{report}");
    }

    fn operator_token(&self) -> String {
        self.platform.secrets().unwrap().operator_token().unwrap()
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

pub fn sold_seats(show: &api::Show) -> Vec<u64> {
    show.sections.iter().filter_map(|section| section.availability).map(|now| now.sold).collect()
}
