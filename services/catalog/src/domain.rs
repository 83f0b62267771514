//! What a show is, and which shows there can be. Knows no HTTP, no SQL, no messages.

use std::collections::HashSet;

use stampede_contracts::{
    Currency, Money, SectionId, ShowId, Timestamp, VenueId,
    api::{NewSection, NewShow, NewVenue, Section, ShowSummary, Venue},
    event::{LobbyRules, Row, SHOW_ROWS_MAX, SHOW_SEATS_MAX, Seating, SectionPlan, ShowPublished},
};

/// Sections of a show, at most.
pub const SECTIONS_MAX: usize = 100;
/// Seats of a row, at most: a row lies in one block.
pub const ROW_SEATS_MAX: u32 = 1_000;

/// A show as the catalog keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct ShowRecord {
    /// The show.
    pub show_id: ShowId,
    /// Unique short name.
    pub slug: String,
    /// Title.
    pub title: String,
    /// Where.
    pub venue: Venue,
    /// When it starts.
    pub starts_at: Timestamp,
    /// From when on seats can be held.
    pub sale_opens_at: Timestamp,
    /// Until when an order can be cancelled.
    pub cancel_until: Timestamp,
    /// Currency of every price.
    pub currency: Currency,
    /// How its lobby lets people in, if it has one.
    pub lobby: Option<LobbyRules>,
    /// Grows with every change.
    pub version: i64,
    /// The cheapest seat.
    pub price_from: Money,
    /// The sections, best first.
    pub sections: Vec<SectionPlan>,
}

/// Why a show cannot be. The text is for the operator who asked.
///
/// The contract has the rules for single values; [`is_contradiction`](Self::is_contradiction) marks the others.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidShow {
    /// The slug.
    #[error("slug: 1 to 64 lower-case letters, digits and dashes")]
    Slug,
    /// A text that is empty, too long, or has control characters.
    #[error("{0}: 1 to {1} characters, no control characters")]
    Text(&'static str, usize),
    /// The number of sections.
    #[error("sections: 1 to {SECTIONS_MAX}")]
    Sections,
    /// Two sections with one name.
    #[error("sections: the name {0:?} comes twice")]
    TwoSections(String),
    /// A section without seats or a row that is too long.
    #[error("section {0:?}: rows of 1 to {ROW_SEATS_MAX} seats, or at least 1 place")]
    Seating(String),
    /// Two rows of a section with one label.
    #[error("section {0:?}: rows need different labels")]
    TwoRows(String),
    /// A price below zero or too high.
    #[error("section {0:?}: price: 0 to {max} minor units", max = Money::AMOUNT_MAX)]
    Price(String),
    /// Too many seats.
    #[error("a show has at most {SHOW_SEATS_MAX} seats and places")]
    Capacity,
    /// Too many rows: what is published of the show would not fit into one message.
    #[error("a show has at most {SHOW_ROWS_MAX} rows of numbered seats, over all its sections")]
    Rows,
    /// Times in the wrong order.
    #[error(
        "times: a sale opens before the show starts, and orders can be cancelled until then at the latest"
    )]
    Times,
    /// Lobby rules out of range.
    #[error("lobby: rate_per_second 1 to 10000, slots_max 1 to 100000, slot_seconds 10 to 3600")]
    Lobby,
    /// A lobby that opens after the sale.
    #[error("lobby: opens_at before the sale opens")]
    LobbyTimes,
}

impl InvalidShow {
    /// Whether each value is valid alone: a rule over several of them, which no schema can express.
    pub fn is_contradiction(&self) -> bool {
        match self {
            Self::TwoSections(_)
            | Self::TwoRows(_)
            | Self::Capacity
            | Self::Rows
            | Self::Times
            | Self::LobbyTimes => true,
            Self::Slug
            | Self::Text(..)
            | Self::Sections
            | Self::Seating(_)
            | Self::Price(_)
            | Self::Lobby => false,
        }
    }
}

impl ShowRecord {
    /// A new show from an operator's words, at version 1.
    ///
    /// # Errors
    /// [`InvalidShow`] names the first rule that is broken.
    pub fn try_new(request: &NewShow, now: Timestamp) -> Result<Self, InvalidShow> {
        let slug_fits = (1..=64).contains(&request.slug.len())
            && request.slug.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        if !slug_fits {
            return Err(InvalidShow::Slug);
        }
        let sale_opens_at = request.sale_opens_at.unwrap_or(now);
        let cancel_until = request.cancel_until.unwrap_or(request.starts_at);
        if sale_opens_at >= request.starts_at || cancel_until > request.starts_at {
            return Err(InvalidShow::Times);
        }
        check_lobby(request.lobby.as_ref(), sale_opens_at)?;
        let sections = sections(&request.sections, request.currency)?;
        Ok(Self {
            show_id: ShowId::new(),
            slug: request.slug.clone(),
            title: text("title", &request.title, 200)?,
            venue: venue(&request.venue)?,
            starts_at: request.starts_at,
            sale_opens_at,
            cancel_until,
            currency: request.currency,
            lobby: request.lobby.clone(),
            version: 1,
            price_from: cheapest(&sections).ok_or(InvalidShow::Sections)?,
            sections,
        })
    }

    /// As it stands in a list.
    pub fn summary(&self) -> ShowSummary {
        ShowSummary {
            show_id: self.show_id,
            slug: self.slug.clone(),
            title: self.title.clone(),
            venue: self.venue.clone(),
            starts_at: self.starts_at,
            sale_opens_at: self.sale_opens_at,
            lobby: self.lobby.is_some(),
            price_from: self.price_from,
        }
    }

    /// As everybody else learns of it.
    pub fn published(&self) -> ShowPublished {
        ShowPublished {
            show_id: self.show_id,
            version: self.version,
            title: self.title.clone(),
            venue: self.venue.name.clone(),
            starts_at: self.starts_at,
            sale_opens_at: self.sale_opens_at,
            cancel_until: self.cancel_until,
            currency: self.currency,
            sections: self.sections.clone(),
            lobby: self.lobby.clone(),
        }
    }
}

/// The lowest price of these sections.
pub fn cheapest(sections: &[SectionPlan]) -> Option<Money> {
    sections.iter().map(|section| section.price).min_by_key(Money::amount)
}

/// A section as buyers see it, without its availability.
pub fn section_view(plan: &SectionPlan) -> Section {
    Section {
        section_id: plan.section_id,
        name: plan.name.clone(),
        price: plan.price,
        numbered: matches!(plan.seating, Seating::Rows(_)),
        availability: None,
    }
}

fn text(field: &'static str, value: &str, max: usize) -> Result<String, InvalidShow> {
    // The length is that of the value as sent, as in the contract; then surrounding blanks are cut off.
    let fits = value.chars().count() <= max && !value.chars().any(char::is_control);
    let value = value.trim();
    (fits && !value.is_empty()).then(|| value.to_owned()).ok_or(InvalidShow::Text(field, max))
}

fn venue(venue: &NewVenue) -> Result<Venue, InvalidShow> {
    let (name, city) = (text("venue.name", &venue.name, 200)?, text("venue.city", &venue.city, 200)?);
    Ok(Venue { venue_id: VenueId::new(), name, city })
}

fn sections(requested: &[NewSection], currency: Currency) -> Result<Vec<SectionPlan>, InvalidShow> {
    if !(1..=SECTIONS_MAX).contains(&requested.len()) {
        return Err(InvalidShow::Sections);
    }
    let mut names = HashSet::new();
    let mut sections = Vec::with_capacity(requested.len());
    for section in requested {
        let name = text("section.name", &section.name, 100)?;
        if !names.insert(name.clone()) {
            return Err(InvalidShow::TwoSections(name));
        }
        if !seating_fits(&section.seating) {
            return Err(InvalidShow::Seating(name));
        }
        if has_two_rows(&section.seating) {
            return Err(InvalidShow::TwoRows(name));
        }
        let price = Money::try_new(section.price, currency).map_err(|_| InvalidShow::Price(name.clone()))?;
        sections.push(SectionPlan {
            section_id: SectionId::new(),
            name,
            price,
            seating: section.seating.clone(),
        });
    }
    if sections.iter().map(|section| section.seating.rows()).sum::<usize>() > SHOW_ROWS_MAX {
        return Err(InvalidShow::Rows);
    }
    let capacity: u64 = sections.iter().map(|section| section.seating.capacity()).sum();
    if capacity > SHOW_SEATS_MAX { Err(InvalidShow::Capacity) } else { Ok(sections) }
}

fn seating_fits(seating: &Seating) -> bool {
    let row_fits = |row: &Row| {
        (1..=ROW_SEATS_MAX).contains(&row.seats) && text("row", &row.label, 16).is_ok_and(|l| l == row.label)
    };
    match seating {
        Seating::GeneralAdmission(places) => *places >= 1,
        Seating::Rows(rows) => !rows.is_empty() && rows.iter().all(row_fits),
    }
}

fn has_two_rows(seating: &Seating) -> bool {
    let Seating::Rows(rows) = seating else { return false };
    let mut labels = HashSet::new();
    !rows.iter().all(|row| labels.insert(row.label.as_str()))
}

fn check_lobby(lobby: Option<&LobbyRules>, sale_opens_at: Timestamp) -> Result<(), InvalidShow> {
    let fits = lobby.is_none_or(|rules| {
        (1..=10_000).contains(&rules.rate_per_second)
            && (1..=100_000).contains(&rules.slots_max)
            && (10..=3_600).contains(&rules.slot_seconds)
    });
    if !fits {
        return Err(InvalidShow::Lobby);
    }
    let is_in_time = lobby.is_none_or(|rules| rules.opens_at <= sale_opens_at);
    if is_in_time { Ok(()) } else { Err(InvalidShow::LobbyTimes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn request() -> NewShow {
        let sections = vec![
            NewSection {
                name: "Floor".into(),
                price: 4_500,
                seating: Seating::Rows(vec![
                    Row { label: "A".into(), seats: 20 },
                    Row { label: "B".into(), seats: 22 },
                ]),
            },
            NewSection { name: "Standing".into(), price: 3_000, seating: Seating::GeneralAdmission(100) },
        ];
        NewShow {
            slug: "club-night".into(),
            title: "Club Night".into(),
            venue: NewVenue { name: "The Club".into(), city: "Utrecht".into() },
            starts_at: "2030-01-31T20:00:00Z".parse().unwrap(),
            sale_opens_at: None,
            cancel_until: None,
            currency: "EUR".parse().unwrap(),
            sections,
            lobby: None,
        }
    }

    /// As much to say of each of a hundred sections and of this many rows as there can be.
    fn wordy(rows: usize) -> NewShow {
        let widest = |length| "\u{1f39f}".repeat(length);
        let row = |nth| Row { label: format!("{nth:04}{}", widest(12)), seats: 40 };
        let rows: Vec<Row> = (0..rows).map(row).collect();
        let section = |(nth, rows): (usize, &[Row])| NewSection {
            name: format!("{nth:02}{}", widest(98)),
            price: Money::AMOUNT_MAX,
            seating: Seating::Rows(rows.to_vec()),
        };
        let sections = rows.chunks(rows.len().div_ceil(SECTIONS_MAX)).enumerate().map(section).collect();
        let venue = NewVenue { name: widest(200), city: widest(200) };
        NewShow { title: widest(200), venue, sections, ..request() }
    }

    #[test]
    fn the_largest_show_fits_into_the_outbox_and_one_row_more_is_refused() {
        // What the table `outbox` takes; NATS takes twice as much.
        const OUTBOX_MAX_BYTES: usize = 512 * 1024;
        let show = ShowRecord::try_new(&wordy(SHOW_ROWS_MAX), now()).unwrap();
        let size = serde_json::to_vec(&show.published()).unwrap().len();
        assert!((300_000..OUTBOX_MAX_BYTES).contains(&size), "{size}");
        assert_eq!(ShowRecord::try_new(&wordy(SHOW_ROWS_MAX + 1), now()), Err(InvalidShow::Rows));
    }

    fn now() -> Timestamp {
        "2030-01-01T00:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_sensible_show_gets_its_defaults() {
        let show = ShowRecord::try_new(&request(), now()).unwrap();
        assert_eq!(show.sale_opens_at, now());
        assert_eq!(show.cancel_until, show.starts_at);
        assert_eq!(show.summary().price_from.amount(), 3_000);
        assert!(!show.summary().lobby);
    }

    #[test]
    fn every_rule_is_named_when_broken() {
        let rules =
            |rate| LobbyRules { opens_at: now(), rate_per_second: rate, slots_max: 10, slot_seconds: 60 };
        type Change = Box<dyn Fn(&mut NewShow)>;
        let cases: Vec<(Change, InvalidShow)> = vec![
            (Box::new(|show| show.slug = "Club Night".into()), InvalidShow::Slug),
            (Box::new(|show| show.slug = String::new()), InvalidShow::Slug),
            (Box::new(|show| show.title = " \n".into()), InvalidShow::Text("title", 200)),
            (Box::new(|show| show.title = "x".repeat(201)), InvalidShow::Text("title", 200)),
            (Box::new(|show| show.venue.city = String::new()), InvalidShow::Text("venue.city", 200)),
            (Box::new(|show| show.sections.clear()), InvalidShow::Sections),
            (
                Box::new(|show| show.sections[1].name = "Floor".into()),
                InvalidShow::TwoSections("Floor".into()),
            ),
            (Box::new(|show| show.sections[0].price = -1), InvalidShow::Price("Floor".into())),
            (
                Box::new(|show| show.sections[0].seating = Seating::Rows(vec![])),
                InvalidShow::Seating("Floor".into()),
            ),
            (
                Box::new(|show| show.sections[1].seating = Seating::GeneralAdmission(0)),
                InvalidShow::Seating("Standing".into()),
            ),
            (
                Box::new(|show| show.sections[1].seating = Seating::GeneralAdmission(u32::MAX)),
                InvalidShow::Capacity,
            ),
            (Box::new(|show| show.sale_opens_at = Some(show.starts_at)), InvalidShow::Times),
            (Box::new(move |show| show.lobby = Some(rules(0))), InvalidShow::Lobby),
        ];
        for (change, rule) in cases {
            let mut show = request();
            change(&mut show);
            assert_eq!(ShowRecord::try_new(&show, now()), Err(rule));
        }
    }
}
