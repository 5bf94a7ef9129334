//! Templates against what Go answered.

use super::value::Value;
use super::*;
use proptest::prelude::*;
use std::time::Duration;

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

fn data() -> Data {
    Data {
        labels: BTreeMap::new(),
        external_labels: BTreeMap::new(),
        external_url: String::new(),
        value: 1234567.0,
        now_ms: 60_000,
    }
}

/// Answers the queries that the templates ask.
fn queries(query: &str) -> Result<Vec<QuerySample>, String> {
    let sample = |instance: &str, n: &str, value: f64| QuerySample {
        labels: labels(&[("__name__", "up"), ("instance", instance), ("job", "node"), ("n", n)]),
        value,
    };
    let (a, b) = (sample("a.example.com:9090", "2", 1.0), sample("b.example.com:9090", "1", 0.0));
    match query {
        "up" | "sort_desc(up)" => Ok(vec![a, b]),
        "sort(up)" => Ok(vec![b, a]),
        "up{n=\"1\"}" | "up{n='1'}" => Ok(vec![b]),
        "nothing" => Ok(Vec::new()),
        "many" => Ok(vec![a; 1001]),
        _ => Err("1:4: parse error: unexpected end of input".to_owned()),
    }
}

fn expand(text: &str, data: &Data) -> Result<String, TemplateError> {
    Template::parse("__alert_T", text)?.expand(data, &mut queries, Limits::default())
}

#[test]
fn templates_expand_and_fail_as_in_go() {
    let mut failed = Vec::new();
    let mut lines = include_str!("../../../tests/rules/templates.txt")
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut count = 0;
    while let (Some(template), Some(answer)) = (lines.next(), lines.next()) {
        count += 1;
        let template: String = serde_json::from_str(template).expect("a JSON string");
        let (kind, answer) = answer.split_once(' ').expect("a kind and an answer");
        let answer: String = serde_json::from_str(answer).expect("a JSON string");
        let got = match expand(&template, &data()) {
            Ok(text) => ("text", text),
            Err(error @ TemplateError::Execute { .. }) => ("error", error.to_string()),
            Err(error @ TemplateError::Parse { .. }) => ("parse", error.text().to_owned()),
        };
        if got != (kind, answer.clone()) {
            failed.push(format!("{template}\n  Go   {kind}: {answer:?}\n  here {}: {:?}", got.0, got.1));
        }
    }
    assert!(count > 300, "only {count} templates");
    assert!(failed.is_empty(), "{} differ:\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn what_later_versions_added_is_there() {
    let mut data = data();
    data.labels = labels(&[("instance", "a:9090"), ("job", "x")]);
    data.external_labels = labels(&[("cluster", "eu")]);
    data.external_url = "https://prom.example.com/sub/path".to_owned();
    data.now_ms = 1_435_065_584_128;
    for (template, expected) in [
        ("{{ $labels.instance }} {{ $labels }}", "a:9090 map[instance:a:9090 job:x]"),
        ("{{ $externalLabels.cluster }} {{ $externalURL }}", "eu https://prom.example.com/sub/path"),
        ("{{ externalURL }} {{ pathPrefix }}", "https://prom.example.com/sub/path /sub/path"),
        ("{{ now }} {{ now | toTime }}", "1.435065584128e+09 2015-06-23 13:19:44.128 +0000 UTC"),
        (
            "{{ toDuration 3723.5 }} {{ (toDuration 90).Minutes }} {{ toDuration 0.0015 }}",
            "1h2m3.5s 1.5 1.5ms",
        ),
        ("{{ urlQueryEscape \"a b/é\" }}", "a+b%2F%C3%A9"),
        ("{{ with 0 }}a{{ else with 2 }}{{ . }}{{ else }}c{{ end }}", "2"),
        ("{{ range 3 }}{{ . }}{{ end }}{{ range $i := 2 }}{{ $i }}{{ end }}", "01201"),
        ("{{ (query \"up\" | first).Labels }}", "map[__name__:up instance:a.example.com:9090 job:node n:2]"),
    ] {
        assert_eq!(expand(template, &data).as_deref(), Ok(expected), "{template}");
    }
}

#[test]
fn a_template_cannot_cost_more_than_its_limits() {
    let nested = format!("{}1{}", "(".repeat(10_000), ")".repeat(10_000));
    let ifs = |inner: &str| ["{{ if true }}".repeat(55), inner.to_owned(), "{{ end }}".repeat(55)].concat();
    let call = format!("{}print 1{}", "(".repeat(40), ")".repeat(40));
    let body = ifs(&format!("{{{{ template \"x\" {call} }}}}"));
    let recursive = format!("{{{{ define \"x\" }}}}{body}{{{{ end }}}}{{{{ template \"x\" }}}}");
    let chain = "{{ if true }}".repeat(10_000);
    for (template, expected) in [
        ("{{ range 100000000 }}{{ end }}", "exceeded 200000 steps"),
        ("{{ range 1000000 }}0123456789{{ end }}", "the output exceeds 65536 bytes"),
        (
            "{{ $x := \"0123456789\" }}{{ range 100 }}{{ $x = print $x $x }}{{ end }}",
            "the text exceeds 65536 bytes",
        ),
        ("{{ printf \"%1000000d\" 1 }}", "the text exceeds 65536 bytes"),
        ("{{ reReplaceAll \"\" (printf \"%60000d\" 1) \"abc\" }}", "the text exceeds 65536 bytes"),
        (
            "{{ define \"x\" }}{{ template \"x\" }}{{ end }}{{ template \"x\" }}",
            "exceeded maximum template depth",
        ),
        ("{{ query \"many\" }}", "the query has 1001 results, more than 1000"),
        (
            "{{ $x := 1 }}{{ range 40 }}{{ $x = args $x $x }}{{ end }}{{ $x }}",
            "the output exceeds 65536 bytes",
        ),
        ("{{ $x := 1 }}{{ range 60 }}{{ $x = args $x }}{{ end }}", "args nest deeper than 50"),
        (&recursive, "exceeded maximum template depth"),
        (&format!("{{{{ {nested} }}}}"), "nests too deeply"),
        (&chain, "nests too deeply"),
    ] {
        let error = expand(template, &data()).expect_err("a limit").to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_template_that_takes_too_long_is_given_up() {
    let fails = |template: &str, queries: &mut Queries<'_>| {
        let template = Template::parse("t", template).expect("a template");
        let started = Instant::now();
        let limits = Limits {
            deadline: Some(started + Duration::from_millis(100)),
            steps: u64::MAX,
            ..Limits::default()
        };
        let error = template.expand(&data(), queries, limits).expect_err("too late").to_string();
        assert!(error.contains("exceeded the time for templates"), "{error}");
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    };
    fails("{{ range 1000000000000 }}{{ end }}", &mut queries);
    fails(
        "{{ range 1000000 }}{{ range 1000000 }}{{ range 1000000 }}{{ end }}{{ end }}{{ end }}",
        &mut queries,
    );
    let slow =
        "{{ range 1000000000 }}{{ $x := reReplaceAll \"(a|b| )+?\" \"$1\" (printf \"%60000d\" 1) }}{{ end }}";
    fails(slow, &mut queries);
    fails("{{ range 1000000000 }}{{ $x := match \"(x{1,30}){1,30}\" \"y\" }}{{ end }}", &mut queries);
    let mut asked = 0;
    fails("{{ range 1000000000 }}{{ $x := query \"up\" }}{{ end }}", &mut |query| {
        asked += 1;
        std::thread::park_timeout(Duration::from_millis(20));
        queries(query)
    });
    assert!(asked < 20, "{asked}");
}

proptest! {
    #[test]
    fn no_template_makes_it_panic(
        words in prop::collection::vec(
            prop::sample::select(vec![
                "{{", "}}", "{{-", " -}}", " ", "if", "else", "end", "range", "with", "define", "template", "block",
                "break", "continue", "$x", ":=", "=", "|", "(", ")", ".", ".Labels", ".Value", "$labels", "$value",
                "\"a\"", "`b`", "'c'", "1", "1.5", "-1", "nil", "true", "printf", "print", "index", "slice", "len",
                "eq", "lt", "and", "or", "not", "query", "first", "label", "value", "humanize", "humanizeDuration",
                "toTime", "toDuration", "reReplaceAll", "match", "args", "\"up\"", "\"%[2]*.3d%v\"", "html", ",",
                "{{/*", "*/}}", "é", "\n", ".Format", "title", "stripDomain", "parseDuration", "humanizeTimestamp",
            ]),
            0..40,
        ),
    ) {
        let _ = expand(&words.concat(), &data());
        let _ = expand(&format!("{{{{ {} }}}}", words.join(" ")), &data());
    }

    #[test]
    fn no_text_makes_it_panic(text in ".*") {
        let _ = expand(&text, &data());
        let _ = expand(&format!("{{{{ {text} }}}}"), &data());
        let _ = printf::printf(&text, &[Value::Int(-5), Value::Float(1.5), Value::text("é")], 1000);
        let _ = dates::format(-1, &text);
    }
}
