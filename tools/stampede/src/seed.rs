//! Three shows to begin with, made through the public API as an operator would: an arena with 20,000 numbered seats,
//! a club with 500, a festival with 50,000 places.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde::de::DeserializeOwned;
use stampede_contracts::api::{NewSection, NewShow, NewVenue, Page, Show, ShowSummary};
use stampede_contracts::event::{LobbyRules, Row, Seating};
use stampede_contracts::{Currency, ShowId, Timestamp};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// One call may take this long; the platform has just been started.
const CALL_LIMIT: Duration = Duration::from_secs(10);
/// From a show's creation until all its seats are in the catalog's copy.
const BUYABLE_LIMIT: Duration = Duration::from_secs(60);
const BUYABLE_POLL: Duration = Duration::from_millis(50);
/// Pages of shows that are looked through; a bound, not a wish.
const PAGES_MAX: usize = 1_000;
/// The show without a lobby, the easiest to buy for.
const CLUB: &str = "club-night";
const CURRENCY: &str = "EUR";

/// The public API, with an operator's rights.
pub(crate) struct Api {
    client: reqwest::Client,
    gateway: String,
    operator: String,
}

/// What seeding did.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seeded {
    pub(crate) made: usize,
    pub(crate) club: Option<ShowId>,
}

impl Api {
    pub(crate) fn new(client: reqwest::Client, gateway: String, operator: String) -> Self {
        Self { client, gateway, operator }
    }

    /// Makes the shows that are missing and waits until all three can be bought.
    pub(crate) async fn seed(&self, now: Timestamp) -> anyhow::Result<Seeded> {
        let mut seeded = Seeded::default();
        let present = self.shows().await?;
        for show in shows(now)? {
            let id = match present.iter().find(|found| found.slug == show.slug) {
                Some(found) => found.show_id,
                None => {
                    seeded.made += 1;
                    self.make(&show)
                        .await
                        .with_context(|| format!("the show {} cannot be made", show.slug))?
                }
            };
            if show.slug == CLUB {
                seeded.club = Some(id);
            }
            self.buyable(id, &show).await?;
        }
        Ok(seeded)
    }

    async fn make(&self, show: &NewShow) -> anyhow::Result<ShowId> {
        let request = self.client.post(format!("{}/v1/ops/shows", self.gateway));
        let answer = read::<Show>(request.bearer_auth(&self.operator).json(show)).await?;
        Ok(answer.summary.show_id)
    }

    async fn shows(&self) -> anyhow::Result<Vec<ShowSummary>> {
        let mut shows = Vec::new();
        let mut cursor = None;
        for _ in 0..PAGES_MAX {
            let mut request = self.client.get(format!("{}/v1/shows?limit=100", self.gateway));
            if let Some(cursor) = &cursor {
                request = request.query(&[("cursor", cursor)]);
            }
            let page: Page<ShowSummary> = read(request).await?;
            shows.extend(page.items);
            cursor = page.next_cursor;
            if cursor.is_none() {
                return Ok(shows);
            }
        }
        bail!("more than {PAGES_MAX} pages of shows")
    }

    /// Waits until every seat of a show is known to the catalog: a buyer sees them all.
    async fn buyable(&self, id: ShowId, planned: &NewShow) -> anyhow::Result<()> {
        let capacity: u64 = planned.sections.iter().map(|section| section.seating.capacity()).sum();
        let complete = async {
            loop {
                if self.known(id).await.unwrap_or_default() >= capacity {
                    return;
                }
                tokio::time::sleep(BUYABLE_POLL).await;
            }
        };
        if tokio::time::timeout(BUYABLE_LIMIT, complete).await.is_err() {
            let known = self.known(id).await?;
            bail!(
                "after {BUYABLE_LIMIT:?} only {known} of {capacity} seats of {} are for sale",
                planned.slug
            );
        }
        Ok(())
    }

    async fn known(&self, id: ShowId) -> anyhow::Result<u64> {
        let show: Show = read(self.client.get(format!("{}/v1/shows/{id}", self.gateway))).await?;
        Ok(show.sections.iter().filter_map(|section| section.availability).map(|all| all.capacity).sum())
    }
}

async fn read<T: DeserializeOwned>(request: reqwest::RequestBuilder) -> anyhow::Result<T> {
    let answer = request.timeout(CALL_LIMIT).send().await?;
    let (status, url) = (answer.status(), answer.url().clone());
    let body = answer.bytes().await?;
    ensure!(status.is_success(), "{url} answered {status}: {}", String::from_utf8_lossy(&body));
    serde_json::from_slice(&body).with_context(|| format!("{url} answered something else than expected"))
}

/// The three shows, all in three months and for sale at once.
fn shows(now: Timestamp) -> anyhow::Result<Vec<NewShow>> {
    let currency = CURRENCY.parse().context("the currency of the shows")?;
    Ok(vec![arena(now, currency), club(now, currency), festival(now, currency)])
}

fn arena(now: Timestamp, currency: Currency) -> NewShow {
    let tiers = [("Floor", 4, 12_900), ("Lower", 8, 8_900), ("Upper", 8, 4_900)];
    let sections = tiers.into_iter().flat_map(|(tier, count, price)| {
        (1..=count).map(move |number| NewSection {
            name: format!("{tier} {number}"),
            price,
            seating: rows(25, 40),
        })
    });
    NewShow {
        sections: sections.collect(),
        lobby: Some(LobbyRules { opens_at: now, rate_per_second: 200, slots_max: 2_000, slot_seconds: 300 }),
        ..show(now, currency, "arena-tour", "Grand Arena Tour", ("Harbour Arena", "Hamburg"))
    }
}

fn club(now: Timestamp, currency: Currency) -> NewShow {
    NewShow {
        sections: vec![NewSection { name: "Hall".to_owned(), price: 2_500, seating: rows(20, 25) }],
        ..show(now, currency, CLUB, "Club Night", ("Blue Note Cellar", "Leipzig"))
    }
}

fn festival(now: Timestamp, currency: Currency) -> NewShow {
    let field = |name: &str, price| NewSection {
        name: name.to_owned(),
        price,
        seating: Seating::GeneralAdmission(25_000),
    };
    NewShow {
        sections: vec![field("Front field", 14_900), field("Main field", 9_900)],
        lobby: Some(LobbyRules {
            opens_at: now,
            rate_per_second: 1_000,
            slots_max: 20_000,
            slot_seconds: 300,
        }),
        ..show(now, currency, "summer-festival", "Summer Festival", ("Airfield", "Neuhardenberg"))
    }
}

fn show(now: Timestamp, currency: Currency, slug: &str, title: &str, (venue, city): (&str, &str)) -> NewShow {
    NewShow {
        slug: slug.to_owned(),
        title: title.to_owned(),
        venue: NewVenue { name: venue.to_owned(), city: city.to_owned() },
        starts_at: now + 90 * DAY,
        sale_opens_at: None,
        cancel_until: None,
        currency,
        sections: Vec::new(),
        lobby: None,
    }
}

/// So many rows, named A, B, …, with so many seats each.
fn rows(count: u8, seats: u32) -> Seating {
    let label = |row: u8| char::from(b'A' + row).to_string();
    Seating::Rows((0..count.min(26)).map(|row| Row { label: label(row), seats }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shows_have_the_sizes_we_tell_people() {
        let shows = shows(Timestamp::now()).unwrap();
        let size =
            |show: &NewShow| -> u64 { show.sections.iter().map(|section| section.seating.capacity()).sum() };
        assert_eq!(shows.iter().map(size).collect::<Vec<_>>(), [20_000, 500, 50_000]);
        assert!(shows.iter().all(|show| show.sections.len() <= 100));
        // The first purchase in the README needs no lobby.
        assert!(shows.iter().find(|show| show.slug == CLUB).unwrap().lobby.is_none());
    }
}
