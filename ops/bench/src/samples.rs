//! Numbers of one kind, and what is said of them.

use std::time::Duration;

#[derive(Debug, Clone, Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    pub fn push(&mut self, sample: f64) {
        self.0.push(sample);
    }

    pub fn push_milliseconds(&mut self, took: Duration) {
        self.push(took.as_secs_f64() * 1_000.0);
    }

    /// Each of the other's samples that was taken beside it.
    pub fn of(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(one, other)| one / other).collect())
    }

    pub fn iter(&self) -> impl Iterator<Item = f64> {
        self.0.iter().copied()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn mean(&self) -> f64 {
        self.0.iter().sum::<f64>() / self.0.len() as f64
    }

    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    pub fn most(&self) -> f64 {
        self.quantile(1.0)
    }

    /// For ratios: the median, and between which two half of them are.
    pub fn with_spread(&self) -> String {
        let [low, high] = [0.25, 0.75].map(|part| self.quantile(part));
        format!("{:.3}  ({low:.3} to {high:.3})", self.median())
    }

    /// The smallest sample that at least this part of all do not exceed. Nothing is no number.
    pub fn quantile(&self, part: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (part * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
    }
}

impl Extend<f64> for Samples {
    fn extend<I: IntoIterator<Item = f64>>(&mut self, samples: I) {
        self.0.extend(samples);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_samples() {
        let mut samples = Samples::default();
        assert!(samples.median().is_nan());
        samples.extend((1..=100).rev().map(f64::from));
        let said =
            [samples.quantile(0.0), samples.median(), samples.quantile(0.99), samples.most()];
        assert_eq!(said, [1.0, 50.0, 99.0, 100.0]);
        assert_eq!(samples.with_spread(), "50.000  (25.000 to 75.000)");
        assert_eq!(samples.mean(), 50.5);
    }

    #[test]
    fn what_was_taken_side_by_side_is_compared() {
        let (mut ones, mut others) = (Samples::default(), Samples::default());
        ones.extend([1.0, 6.0, 3.0]);
        others.extend([2.0, 3.0, 1.0]);
        let ratios = ones.of(&others);
        assert_eq!([ratios.quantile(0.0), ratios.median(), ratios.most()], [0.5, 2.0, 3.0]);
    }
}
