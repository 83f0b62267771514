//! Amounts as Kubernetes writes them.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// What follows the number, and by how many thousandths it counts. The longer ones first.
const UNITS: [(&str, u64); 8] = [
    ("Ki", 1_000 << 10),
    ("Mi", 1_000 << 20),
    ("Gi", 1_000 << 30),
    ("m", 1),
    ("k", 1_000_000),
    ("M", 1_000_000_000),
    ("G", 1_000_000_000_000),
    ("", 1_000),
];

/// An amount in thousandths: of a CPU, of a byte. Nothing for what is no whole number of a known unit.
pub fn quantity(quantity: &Quantity) -> Option<u64> {
    let (number, thousandths) =
        UNITS.iter().find_map(|(unit, factor)| Some((quantity.0.strip_suffix(unit)?, *factor)))?;
    number.parse::<u64>().ok()?.checked_mul(thousandths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_in_thousandths() {
        let read = |text: &str| quantity(&Quantity(text.to_owned()));
        assert_eq!([read("25m"), read("1"), read("32Mi")], [Some(25), Some(1_000), Some(33_554_432_000)]);
        assert_eq!([read("1.5"), read("x"), read("")], [None, None, None]);
    }
}
