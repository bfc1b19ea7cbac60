//! Numbers of packs as runs: a record of a large recovery point stays small.

use std::collections::BTreeMap;

use dr_repository::Label;

/// Puts numbers together, by label. They must come in order, as they do in a manifest.
pub(super) fn of<'a>(
    packs: impl Iterator<Item = (&'a Label, u32)>,
) -> BTreeMap<String, Vec<(u32, u32)>> {
    let mut runs: BTreeMap<String, Vec<(u32, u32)>> = BTreeMap::new();
    for (label, number) in packs {
        let runs = runs.entry(label.to_string()).or_default();
        match runs.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(number) => *last = number,
            _ => runs.push((number, number)),
        }
    }
    runs
}

/// Takes them apart again. What is not the label of a backup is left out.
pub(super) fn packs(
    runs: &BTreeMap<String, Vec<(u32, u32)>>,
) -> impl Iterator<Item = (Label, u32)> + '_ {
    runs.iter().flat_map(|(label, runs)| {
        let label = label.parse::<Label>().ok();
        let numbers = runs.iter().flat_map(|(first, last)| *first..=*last);
        numbers.filter_map(move |number| Some((label.clone()?, number)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_come_back_as_they_were() {
        let labels: Vec<Label> = ["20261121T093005Z-0001", "20261120T093005Z-0002"]
            .map(|label| label.parse().unwrap())
            .into();
        let packs: Vec<(&Label, u32)> = [(0, 0), (0, 1), (0, 2), (0, 4), (1, 7), (1, 9), (0, 5)]
            .map(|(label, number): (usize, u32)| (&labels[label], number))
            .into();
        let runs = of(packs.iter().copied());
        assert_eq!(runs[labels[0].as_str()], [(0, 2), (4, 5)]);
        assert_eq!(runs[labels[1].as_str()], [(7, 7), (9, 9)]);
        let mut back: Vec<(Label, u32)> = super::packs(&runs).collect();
        back.sort();
        let mut expected: Vec<(Label, u32)> = packs
            .iter()
            .map(|(label, number)| ((*label).clone(), *number))
            .collect();
        expected.sort();
        assert_eq!(back, expected);
    }
}
