//! How a benchmark prints what it found: one row a line, for a person and for `benches/accept`.

/// Prints a row: what was measured, the figure, and its unit, a single word such as `Msamples/s`.
///
/// `benches/accept` finds a figure by the row's name, which stays as it is from then on.
pub fn row(name: &str, figure: f64, unit: &str) {
    debug_assert!(!unit.contains(' '), "the unit {unit:?} is one word");
    println!("{name:<48} {:>12} {unit}", digits(figure));
}

/// A figure with four digits that count.
fn digits(figure: f64) -> String {
    let decimals = (3.0 - figure.abs().log10().floor()).clamp(0.0, 6.0);
    format!("{figure:.*}", decimals as usize)
}
