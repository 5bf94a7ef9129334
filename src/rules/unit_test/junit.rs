//! Reports as JUnit XML, which build servers show.

use super::FileReport;
use std::fmt::Write;

/// All reports as one document: a file is a suite, a test a case.
pub fn junit(reports: &[FileReport]) -> String {
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
    for report in reports {
        let name = escaped(&report.path.to_string_lossy());
        let failed = report.tests.iter().filter(|test| !test.failures.is_empty()).count();
        let count = report.tests.len();
        _ = writeln!(out, "  <testsuite name=\"{name}\" tests=\"{count}\" failures=\"{failed}\">");
        for test in &report.tests {
            let case = match test.name.as_str() {
                "" => format!("line {}", test.line),
                named => escaped(named),
            };
            if test.failures.is_empty() {
                _ = writeln!(out, "    <testcase classname=\"{name}\" name=\"{case}\"/>");
                continue;
            }
            _ = writeln!(out, "    <testcase classname=\"{name}\" name=\"{case}\">");
            for failure in &test.failures {
                let message = escaped(&failure.what);
                let text = escaped(&format!(
                    "{}:{}: {}\nexpected:\n{}\ngot:\n{}",
                    report.path.display(),
                    failure.line,
                    failure.what,
                    failure.expected.join("\n"),
                    failure.got.join("\n")
                ));
                _ = writeln!(out, "      <failure message=\"{message}\">{text}</failure>");
            }
            out.push_str("    </testcase>\n");
        }
        out.push_str("  </testsuite>\n");
    }
    out.push_str("</testsuites>\n");
    out
}

/// Text that may stand in an element or attribute; what XML allows nowhere becomes `?`.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(c),
            '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => out.push('?'),
            c => out.push(c),
        }
    }
    out
}
