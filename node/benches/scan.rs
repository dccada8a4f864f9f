//! How long one message takes to scan, and to scan and compose: `cargo bench -p node --bench scan`,
//! or only the samples whose name contains a word: `… --bench scan -- 64`.
//!
//! Prints nanoseconds for one message, the best of several rounds, since noise only ever adds.

#![allow(clippy::print_stdout)] // its output is its purpose
#![allow(clippy::disallowed_methods)] // it measures real time
#![allow(clippy::unwrap_used)] // a benchmark may stop

use std::{hint::black_box, time::Instant};

use cluster::UnixMillis;
use node::message::{Author, ProcessTag, SessionTag, Stamper, compose, scan};

const ROUNDS: usize = 40;
const BYTES_PER_ROUND: usize = 16 << 20;
const OPERATIONS_MAX: usize = 50_000;

fn best_ns(message_len: usize, mut operation: impl FnMut()) -> f64 {
    let operations = (BYTES_PER_ROUND / message_len).clamp(1, OPERATIONS_MAX);
    let round = |_| {
        let start = Instant::now();
        (0..operations).for_each(|_| operation());
        start.elapsed()
    };
    let best = (0..ROUNDS).map(round).min().unwrap_or_default();
    best.as_secs_f64() * 1e9 / f64::from(u32::try_from(operations).unwrap())
}

fn samples() -> Vec<(&'static str, String)> {
    let text =
        |len: usize| format!(r#"{{"to":["rawk-042"],"payload":"{}"}}"#, "lorem ip".repeat(len / 8));
    let object = r#"{"task":"summarise","urls":["https://example.org/a","https://example.org/b"],"score":12.5,"done":false}"#;
    vec![
        ("128 B string", text(128)),
        ("1 KiB string", text(1_024)),
        ("64 KiB string", text(65_400)),
        (
            "small with type and ref",
            format!(
                r#"{{"to":["rawk-042"],"type":"task","ref":"msg_1","priority":1,"payload":{object}}}"#
            ),
        ),
        ("1 KiB of objects", format!(r#"{{"to":["*"],"payload":[{}]}}"#, [object; 10].join(","))),
        (
            "64 KiB escaped",
            format!(r#"{{"to":["*"],"payload":"{}"}}"#, r#"say \"hi\"\n"#.repeat(5_000)),
        ),
        (
            "64 KiB Cyrillic",
            format!(r#"{{"to":["*"],"payload":"{}"}}"#, "привет, мир ".repeat(3_000)),
        ),
        (
            "256 recipients",
            format!(
                r#"{{"to":[{}],"payload":1}}"#,
                (0..256).map(|n| format!("\"agent-{n:04}\"")).collect::<Vec<_>>().join(",")
            ),
        ),
    ]
}

fn main() {
    let author = Author::new(&"alice-007".parse().unwrap());
    let mut stamper = Stamper::new(SessionTag::new(ProcessTag::from_random(7), 1));
    let mut out = Vec::with_capacity(1 << 17);
    println!(
        "{:<24} {:>8} {:>10} {:>8} {:>14} {:>12}",
        "message", "bytes", "scan ns", "GB/s", "scan+compose", "RawValue ns"
    );
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let wanted = wanted.unwrap_or_default();
    for (name, text) in samples().into_iter().filter(|(name, _)| name.contains(&wanted)) {
        let bytes = text.as_bytes();
        let scanned = best_ns(bytes.len(), || {
            black_box(scan(black_box(bytes)).unwrap());
        });
        let composed = best_ns(bytes.len(), || {
            out.clear();
            let message = scan(black_box(bytes)).unwrap();
            compose(&author, &stamper.next(UnixMillis(1_760_000_000_000)), &message, &mut out);
            black_box(&out);
        });
        let peer = best_ns(bytes.len(), || {
            let text = std::str::from_utf8(black_box(bytes)).unwrap();
            black_box(serde_json::from_str::<&serde_json::value::RawValue>(text).unwrap());
        });
        #[allow(clippy::cast_precision_loss)] // lengths of a few bytes to 64 KiB
        let gigabytes = bytes.len() as f64 / scanned;
        println!(
            "{name:<24} {:>8} {scanned:>10.1} {gigabytes:>8.2} {composed:>14.1} {peer:>12.1}",
            bytes.len()
        );
    }
}
