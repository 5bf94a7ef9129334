//! The functions of PromQL: one static table, a row for each.

mod histogram;
mod info;
mod labels;
mod math;
pub(crate) mod over_time;
pub(crate) mod rate;
mod time;
mod trend;
mod vector;

use super::ast::ValueType::{self, Matrix, Scalar, String, Vector};
use super::eval::{EvalError, Operand, Site};
use super::steps::Steps;
use super::window::{Remarks, Window};
use larum_storage_format::Value;

/// How a function works on its arguments.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kernel {
    /// One number for the whole query: `step()`. Put in when the query is planned.
    Query(fn(&Steps) -> f64),
    /// Scalars to a scalar, at each step of its own: `time()`, `min_of(a, b)`.
    Scalar(fn(t_ms: i64, args: &[f64]) -> f64),
    /// A float to a float: `abs(v)`. Drops histograms and the metric's name.
    Float(fn(f64) -> f64),
    /// Seconds since the epoch to a float: `hour(v)`. Without an argument, the time of the step.
    Date(fn(f64) -> f64),
    /// The samples of one window to a value: `sum_over_time(m)`. The scalar arguments of the step
    /// come with the window. Drops the metric's name, see [`Kernel::KeepName`].
    Window(WindowKernel),
    /// A [`Kernel::Window`] that adds up, or, with `mean`, averages.
    Sums { kernel: WindowKernel, mean: bool },
    /// A [`Kernel::Window`] whose value is one of the samples, so that the metric's name stays.
    KeepName(WindowKernel),
    /// `rate(m)` and its like, which share what they need per window between series.
    Rate(rate::Kind),
    /// Everything at once, arguments evaluated: `label_replace(v, ...)`, `sort(v)`.
    Whole(fn(&Site<'_, '_>, Vec<Operand>) -> Result<Operand, EvalError>),
    /// Works on its unevaluated argument: `timestamp(v)`, `absent_over_time(m)`.
    Node(fn(&Site<'_, '_>) -> Result<Operand, EvalError>),
}

/// See [`Kernel::Window`].
pub(crate) type WindowKernel = fn(&Window<'_>, &mut Remarks<'_, '_>) -> Result<Option<Value>, EvalError>;

/// A function: its name, its signature, and how it is done.
#[derive(Debug)]
pub struct Function {
    /// Its name.
    pub name: &'static str,
    /// The types of its arguments; with `variadic`, the last one repeats.
    pub args: &'static [ValueType],
    /// 0: exactly `args`. Otherwise the last of `args` may stand 0 to `variadic` times, or, if
    /// negative, any number of times.
    pub variadic: i32,
    /// The type of its value.
    pub returns: ValueType,
    /// Whether stock Prometheus hides it behind a feature flag.
    pub experimental: bool,
    /// How it is done.
    pub(crate) kernel: Kernel,
}

/// Two functions are the same if their names are.
impl PartialEq for Function {
    fn eq(&self, other: &Function) -> bool {
        self.name == other.name
    }
}

impl Function {
    /// The fewest arguments a call may have.
    pub fn min_args(&self) -> usize {
        if self.variadic == 0 { self.args.len() } else { self.args.len() - 1 }
    }

    /// The most arguments a call may have; `None` if there is no limit.
    pub fn max_args(&self) -> Option<usize> {
        usize::try_from(self.variadic).ok().map(|more| self.min_args() + more)
    }

    /// The type that argument `index` must have; `None` if there is no such argument.
    pub fn arg_type(&self, index: usize) -> Option<ValueType> {
        let repeated = self.args.last().filter(|_| self.max_args().is_none_or(|max| index < max));
        self.args.get(index).or(repeated).copied()
    }
}

/// The function called `name`.
pub fn lookup(name: &str) -> Option<&'static Function> {
    FUNCTIONS.binary_search_by(|f| f.name.cmp(name)).ok().map(|i| &FUNCTIONS[i])
}

const fn stable(
    name: &'static str,
    args: &'static [ValueType],
    variadic: i32,
    returns: ValueType,
    kernel: Kernel,
) -> Function {
    Function { name, args, variadic, returns, experimental: false, kernel }
}

const fn experimental(
    name: &'static str,
    args: &'static [ValueType],
    variadic: i32,
    returns: ValueType,
    kernel: Kernel,
) -> Function {
    Function { name, args, variadic, returns, experimental: true, kernel }
}

/// The functions of Prometheus 3.14, ascending by name.
pub static FUNCTIONS: [Function; 90] = [
    stable("abs", &[Vector], 0, Vector, Kernel::Float(f64::abs)),
    stable("absent", &[Vector], 0, Vector, Kernel::Node(vector::absent)),
    stable("absent_over_time", &[Matrix], 0, Vector, Kernel::Node(vector::absent_over_time)),
    stable("acos", &[Vector], 0, Vector, Kernel::Float(f64::acos)),
    stable("acosh", &[Vector], 0, Vector, Kernel::Float(f64::acosh)),
    stable("asin", &[Vector], 0, Vector, Kernel::Float(f64::asin)),
    stable("asinh", &[Vector], 0, Vector, Kernel::Float(f64::asinh)),
    stable("atan", &[Vector], 0, Vector, Kernel::Float(f64::atan)),
    stable("atanh", &[Vector], 0, Vector, Kernel::Float(f64::atanh)),
    stable("avg_over_time", &[Matrix], 0, Vector, Kernel::Sums { kernel: over_time::avg, mean: true }),
    stable("ceil", &[Vector], 0, Vector, Kernel::Float(f64::ceil)),
    stable("changes", &[Matrix], 0, Vector, Kernel::Window(over_time::changes)),
    stable("clamp", &[Vector, Scalar, Scalar], 0, Vector, Kernel::Whole(math::clamp)),
    stable("clamp_max", &[Vector, Scalar], 0, Vector, Kernel::Whole(math::clamp_max)),
    stable("clamp_min", &[Vector, Scalar], 0, Vector, Kernel::Whole(math::clamp_min)),
    stable("cos", &[Vector], 0, Vector, Kernel::Float(f64::cos)),
    stable("cosh", &[Vector], 0, Vector, Kernel::Float(f64::cosh)),
    stable("count_over_time", &[Matrix], 0, Vector, Kernel::Window(over_time::count)),
    stable("day_of_month", &[Vector], 1, Vector, Kernel::Date(time::day_of_month)),
    stable("day_of_week", &[Vector], 1, Vector, Kernel::Date(time::day_of_week)),
    stable("day_of_year", &[Vector], 1, Vector, Kernel::Date(time::day_of_year)),
    stable("days_in_month", &[Vector], 1, Vector, Kernel::Date(time::days_in_month)),
    stable("deg", &[Vector], 0, Vector, Kernel::Float(math::deg)),
    stable("delta", &[Matrix], 0, Vector, Kernel::Rate(rate::Kind::Delta)),
    stable("deriv", &[Matrix], 0, Vector, Kernel::Window(trend::deriv)),
    experimental(
        "double_exponential_smoothing",
        &[Matrix, Scalar, Scalar],
        0,
        Vector,
        Kernel::Window(trend::double_exponential_smoothing),
    ),
    experimental("end", &[], 0, Scalar, Kernel::Query(time::end)),
    stable("exp", &[Vector], 0, Vector, Kernel::Float(f64::exp)),
    stable("first_over_time", &[Matrix], 0, Vector, Kernel::KeepName(over_time::first)),
    stable("floor", &[Vector], 0, Vector, Kernel::Float(f64::floor)),
    stable("histogram_avg", &[Vector], 0, Vector, Kernel::Whole(histogram::avg)),
    stable("histogram_count", &[Vector], 0, Vector, Kernel::Whole(histogram::count)),
    stable("histogram_fraction", &[Scalar, Scalar, Vector], 0, Vector, Kernel::Whole(histogram::fraction)),
    stable("histogram_quantile", &[Scalar, Vector], 0, Vector, Kernel::Whole(histogram::quantile)),
    experimental(
        "histogram_quantiles",
        &[Vector, String, Scalar, Scalar],
        9,
        Vector,
        Kernel::Whole(histogram::quantiles),
    ),
    stable("histogram_stddev", &[Vector], 0, Vector, Kernel::Whole(histogram::stddev)),
    stable("histogram_stdvar", &[Vector], 0, Vector, Kernel::Whole(histogram::stdvar)),
    stable("histogram_sum", &[Vector], 0, Vector, Kernel::Whole(histogram::sum)),
    stable("hour", &[Vector], 1, Vector, Kernel::Date(time::hour)),
    stable("idelta", &[Matrix], 0, Vector, Kernel::Window(rate::idelta)),
    stable("increase", &[Matrix], 0, Vector, Kernel::Rate(rate::Kind::Increase)),
    experimental("info", &[Vector, Vector], 1, Vector, Kernel::Node(info::info)),
    stable("irate", &[Matrix], 0, Vector, Kernel::Window(rate::irate)),
    stable("label_join", &[Vector, String, String, String], -1, Vector, Kernel::Whole(labels::label_join)),
    stable(
        "label_replace",
        &[Vector, String, String, String, String],
        0,
        Vector,
        Kernel::Whole(labels::label_replace),
    ),
    stable("last_over_time", &[Matrix], 0, Vector, Kernel::KeepName(over_time::last)),
    stable("ln", &[Vector], 0, Vector, Kernel::Float(f64::ln)),
    stable("log10", &[Vector], 0, Vector, Kernel::Float(f64::log10)),
    stable("log2", &[Vector], 0, Vector, Kernel::Float(f64::log2)),
    experimental("mad_over_time", &[Matrix], 0, Vector, Kernel::Window(over_time::mad)),
    experimental("max_of", &[Scalar, Scalar], 0, Scalar, Kernel::Scalar(math::max_of)),
    stable("max_over_time", &[Matrix], 0, Vector, Kernel::Window(over_time::max)),
    experimental("min_of", &[Scalar, Scalar], 0, Scalar, Kernel::Scalar(math::min_of)),
    stable("min_over_time", &[Matrix], 0, Vector, Kernel::Window(over_time::min)),
    stable("minute", &[Vector], 1, Vector, Kernel::Date(time::minute)),
    stable("month", &[Vector], 1, Vector, Kernel::Date(time::month)),
    stable("pi", &[], 0, Scalar, Kernel::Scalar(|_, _| std::f64::consts::PI)),
    stable("predict_linear", &[Matrix, Scalar], 0, Vector, Kernel::Window(trend::predict_linear)),
    stable("present_over_time", &[Matrix], 0, Vector, Kernel::Window(over_time::present)),
    stable("quantile_over_time", &[Scalar, Matrix], 0, Vector, Kernel::Window(over_time::quantile)),
    stable("rad", &[Vector], 0, Vector, Kernel::Float(math::rad)),
    experimental("range", &[], 0, Scalar, Kernel::Query(time::range)),
    stable("rate", &[Matrix], 0, Vector, Kernel::Rate(rate::Kind::Rate)),
    stable("resets", &[Matrix], 0, Vector, Kernel::Window(over_time::resets)),
    stable("round", &[Vector, Scalar], 1, Vector, Kernel::Whole(math::round)),
    stable("scalar", &[Vector], 0, Scalar, Kernel::Whole(vector::scalar)),
    stable("sgn", &[Vector], 0, Vector, Kernel::Float(math::sgn)),
    stable("sin", &[Vector], 0, Vector, Kernel::Float(f64::sin)),
    stable("sinh", &[Vector], 0, Vector, Kernel::Float(f64::sinh)),
    stable("sort", &[Vector], 0, Vector, Kernel::Whole(labels::sort)),
    experimental("sort_by_label", &[Vector, String], -1, Vector, Kernel::Whole(labels::sort_by_label)),
    experimental(
        "sort_by_label_desc",
        &[Vector, String],
        -1,
        Vector,
        Kernel::Whole(labels::sort_by_label_desc),
    ),
    stable("sort_desc", &[Vector], 0, Vector, Kernel::Whole(labels::sort_desc)),
    stable("sqrt", &[Vector], 0, Vector, Kernel::Float(f64::sqrt)),
    experimental("start", &[], 0, Scalar, Kernel::Query(time::start)),
    experimental("start_timestamp", &[Vector], 0, Vector, Kernel::Node(vector::start_timestamp)),
    stable("stddev_over_time", &[Matrix], 0, Vector, Kernel::Window(over_time::stddev)),
    stable("stdvar_over_time", &[Matrix], 0, Vector, Kernel::Window(over_time::stdvar)),
    experimental("step", &[], 0, Scalar, Kernel::Query(time::step)),
    stable("sum_over_time", &[Matrix], 0, Vector, Kernel::Sums { kernel: over_time::sum, mean: false }),
    stable("tan", &[Vector], 0, Vector, Kernel::Float(f64::tan)),
    stable("tanh", &[Vector], 0, Vector, Kernel::Float(f64::tanh)),
    stable("time", &[], 0, Scalar, Kernel::Scalar(time::time)),
    stable("timestamp", &[Vector], 0, Vector, Kernel::Node(vector::timestamp)),
    experimental("ts_of_first_over_time", &[Matrix], 0, Vector, Kernel::Window(over_time::ts_of_first)),
    experimental("ts_of_last_over_time", &[Matrix], 0, Vector, Kernel::Window(over_time::ts_of_last)),
    experimental("ts_of_max_over_time", &[Matrix], 0, Vector, Kernel::Window(over_time::ts_of_max)),
    experimental("ts_of_min_over_time", &[Matrix], 0, Vector, Kernel::Window(over_time::ts_of_min)),
    stable("vector", &[Scalar], 0, Vector, Kernel::Whole(vector::vector)),
    stable("year", &[Vector], 1, Vector, Kernel::Date(time::year)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_is_found_by_its_name() {
        for function in &FUNCTIONS {
            assert_eq!(lookup(function.name), Some(function), "the table is not sorted");
        }
        assert_eq!(FUNCTIONS.iter().filter(|f| f.experimental).count(), 17);
        assert_eq!(lookup("integral"), None);
    }

    #[test]
    fn variadic_functions_bound_their_arguments() {
        let bounds = |name| lookup(name).map(|f| (f.min_args(), f.max_args()));
        assert_eq!(bounds("rate"), Some((1, Some(1))));
        assert_eq!(bounds("round"), Some((1, Some(2))));
        assert_eq!(bounds("hour"), Some((0, Some(1))));
        assert_eq!(bounds("label_join"), Some((3, None)));
        assert_eq!(bounds("histogram_quantiles"), Some((3, Some(12))));
        let arg = |name, index| lookup(name).and_then(|f| f.arg_type(index));
        assert_eq!(arg("label_join", 9), Some(String));
        assert_eq!(arg("histogram_quantiles", 11), Some(Scalar));
        assert_eq!(arg("histogram_quantiles", 12), None);
        assert_eq!(arg("hour", 1), None);
        assert_eq!(arg("pi", 0), None);
    }
}
