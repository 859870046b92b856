//! Figures by system and column: medians and how far rounds lie apart.

use std::collections::BTreeMap;

use crate::systems::Kind;

/// One figure of a measure.
pub struct Column {
    pub title: &'static str,
    pub digits: usize,
    pub is_more_better: bool,
    /// What the figure is to be to that of the best peer: with rustls' records, and with the relay's own.
    pub aim: Option<(f64, f64)>,
}

impl Column {
    pub const fn more(title: &'static str, digits: usize) -> Self {
        Self { title, digits, is_more_better: true, aim: None }
    }

    pub const fn less(title: &'static str, digits: usize) -> Self {
        Self { title, digits, is_more_better: false, aim: None }
    }

    pub const fn aims(self, ours: f64, in_place: f64) -> Self {
        Self { aim: Some((ours, in_place)), ..self }
    }
}

/// All that was measured.
pub struct Results {
    pub rounds: usize,
    pub systems: Vec<Kind>,
    pub columns: Vec<&'static Column>,
    values: BTreeMap<(Kind, &'static str), Vec<f64>>,
    /// What a system could not do, in words.
    pub failures: Vec<String>,
}

/// What rounds say together.
#[derive(Clone, Copy)]
pub struct Summary {
    pub median: f64,
    pub low: f64,
    pub high: f64,
}

impl Results {
    pub fn new(rounds: usize, systems: Vec<Kind>, columns: Vec<&'static Column>) -> Self {
        Self { rounds, systems, columns, values: BTreeMap::new(), failures: Vec::new() }
    }

    pub fn add(&mut self, kind: Kind, columns: &'static [Column], values: &[f64]) {
        for (column, value) in columns.iter().zip(values) {
            self.values.entry((kind, column.title)).or_default().push(*value);
        }
    }

    pub fn of(&self, kind: Kind, column: &Column) -> Option<Summary> {
        let mut values = self.values.get(&(kind, column.title))?.clone();
        values.sort_by(f64::total_cmp);
        let (low, high) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median =
            if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) };
        Some(Summary { median, low, high })
    }

    /// How far the same system twice lies apart, as a part of it.
    pub fn noise(&self, column: &Column) -> Option<f64> {
        let (ours, again) = (self.of(Kind::Ours, column)?, self.of(Kind::Again, column)?);
        (ours.median > 0.0).then(|| (again.median / ours.median - 1.0).abs())
    }

    /// The peer that does best, and what it does.
    pub fn best_peer(&self, column: &Column) -> Option<(Kind, Summary)> {
        let peers = self.systems.iter().filter(|kind| kind.is_peer());
        let figures = peers.filter_map(|kind| Some((*kind, self.of(*kind, column)?)));
        let order = |one: &Summary, other: &Summary| one.median.total_cmp(&other.median);
        if column.is_more_better {
            figures.max_by(|(_, one), (_, other)| order(one, other))
        } else {
            figures.min_by(|(_, one), (_, other)| order(one, other))
        }
    }
}

/// Microseconds, of a hundred sorted ones the `of_hundred`th.
pub fn percentile(took: &mut [std::time::Duration], of_hundred: usize) -> f64 {
    took.sort_unstable();
    let at = (took.len() * of_hundred / 100).min(took.len().saturating_sub(1));
    took.get(at).map_or(0.0, |took| took.as_secs_f64() * 1e6)
}

#[allow(clippy::cast_precision_loss, reason = "figures have four digits")]
pub fn to_f64(number: u64) -> f64 {
    number as f64
}
