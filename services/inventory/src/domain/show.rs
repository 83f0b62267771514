//! A show with its sections and blocks, as far as holding seats needs them.

use stampede_contracts::event::{BlockLayout, LayoutPublished};
use stampede_contracts::inventory::{SeatLabel, ShowFacts};
use stampede_contracts::{BlockId, Money, SeatId, SectionId, ShowId, Timestamp};

use super::block::Places;

/// A show. Geometry never changes; the rest is as of `version`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Show {
    /// The show.
    pub id: ShowId,
    /// Catalog's version.
    pub version: i64,
    /// What a hold freezes.
    pub facts: ShowFacts,
    /// From when on seats can be held.
    pub sale_opens_at: Timestamp,
    /// Whether holding needs a pass from the lobby.
    pub needs_pass: bool,
    /// The sections, best first.
    pub sections: Vec<Section>,
}

/// A section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// The section.
    pub id: SectionId,
    /// Its name.
    pub name: String,
    /// Price of one seat.
    pub price: Money,
    /// Whether its seats have numbers.
    pub numbered: bool,
    /// Its blocks, best first.
    pub blocks: Vec<BlockLayout>,
}

impl Show {
    /// Whether seats can be held now: the sale has begun, the show has not.
    pub fn is_on_sale(&self, now: Timestamp) -> bool {
        (self.sale_opens_at..self.facts.starts_at).contains(&now)
    }

    /// A section.
    pub fn section(&self, id: SectionId) -> Option<&Section> {
        self.sections.iter().find(|section| section.id == id)
    }

    /// A block and its section.
    pub fn block(&self, id: BlockId) -> Option<(&Section, &BlockLayout)> {
        let blocks =
            self.sections.iter().flat_map(|section| section.blocks.iter().map(move |block| (section, block)));
        blocks.into_iter().find(|(_, block)| block.block_id == id)
    }

    /// Where all its blocks lie.
    pub fn layout(&self) -> LayoutPublished {
        let blocks = self.sections.iter().flat_map(|section| section.blocks.iter().cloned()).collect();
        LayoutPublished { show_id: self.id, blocks }
    }
}

impl Section {
    /// The places as a person reads them.
    pub fn labels(&self, block: &BlockLayout, places: &Places) -> Vec<SeatLabel> {
        let unnumbered = || SeatLabel { seat_id: None, section: self.name.clone(), row: None, number: None };
        match places {
            Places::Unnumbered(quantity) => (0..*quantity).map(|_| unnumbered()).collect(),
            Places::Numbered(seats) => {
                let label = |index: &u16| {
                    let (row, number) = row_and_number(block, *index).unzip();
                    let seat_id = Some(SeatId { block: block.block_id, index: *index });
                    SeatLabel { seat_id, row, number, ..unnumbered() }
                };
                seats.iter().map(label).collect()
            }
        }
    }
}

fn row_and_number(block: &BlockLayout, index: u16) -> Option<(String, u32)> {
    let mut index = u32::from(index);
    for span in &block.rows {
        if index < span.seats {
            return Some((span.label.clone(), span.first_number + index));
        }
        index -= span.seats;
    }
    None
}

#[cfg(test)]
mod tests {
    use stampede_contracts::event::RowSpan;

    use super::*;

    #[test]
    fn labels_count_from_the_first_number_of_the_span() {
        let block_id = BlockId::from_number(7);
        let span =
            |label: &str, first_number, seats| RowSpan { label: label.to_owned(), first_number, seats };
        let rows = vec![span("A", 751, 2), span("B", 1, 3)];
        let block = BlockLayout { block_id, section_id: SectionId::new(), shard: 0, capacity: 5, rows };
        let section = Section {
            id: block.section_id,
            name: "Stalls".to_owned(),
            price: Money::try_new(1, "EUR".parse().unwrap()).unwrap(),
            numbered: true,
            blocks: vec![block.clone()],
        };
        let labels = section.labels(&block, &Places::Numbered(vec![1, 2]));
        let read: Vec<_> = labels.iter().map(|label| (label.row.as_deref(), label.number)).collect();
        assert_eq!(read, [(Some("A"), Some(752)), (Some("B"), Some(1))]);
        assert_eq!(labels[1].seat_id, Some(SeatId { block: block_id, index: 2 }));

        let places = section.labels(&block, &Places::Unnumbered(2));
        assert_eq!(places.len(), 2);
        assert_eq!((&places[0].seat_id, &places[0].row), (&None, &None));
    }
}
