//! The print-out: a Markdown table of medians and ratios.

use crate::cases::{Figure, Plan};
use crate::peer::Kind;

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) }
}

fn number(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 1.0 => format!("{v:.1}"),
        v => format!("{v:.3}"),
    }
}

/// How ours stands to another side: `1/3.0` of its cost, or so many times its rate.
fn ratio(figure: &Figure, ours: Option<f64>, theirs: Option<f64>) -> String {
    match (ours, theirs) {
        (Some(ours), Some(theirs)) if ours > 0.0 && theirs > 0.0 => {
            if figure.more_is_better {
                format!("{:.2} × the rate", ours / theirs)
            } else {
                format!("1/{:.1}", theirs / ours)
            }
        }
        _ => "–".to_owned(),
    }
}

pub fn print(figures: &[Figure], plan: &Plan) {
    println!(
        "\nMedians of {} interleaved rounds, 8 keep-alive connections, {} s a load; memory stores on all sides, unless a durable one is named.\n",
        plan.rounds,
        plan.length.as_secs()
    );
    let has_before = figures.iter().any(|figure| figure.sides.contains_key(&Kind::Before));
    let (titles, rules) = if has_before { (" Leasehold before | now ÷ before |", "---|---|") } else { ("", "") };
    println!(
        "| what | unit | Leasehold |{titles} OpenBao | PostgreSQL itself | ratio | wanted |\n|---|---|---|{rules}---|---|---|---|"
    );
    for figure in figures {
        let side = |kind| figure.sides.get(&kind).map(|values| median(values));
        let shown = |kind| side(kind).map_or_else(|| "–".to_owned(), number);
        let ours = side(Kind::Leasehold);
        let before = match (has_before, ours, side(Kind::Before)) {
            (false, ..) => String::new(),
            (true, Some(ours), Some(before)) if before > 0.0 => {
                format!(" {} | {:.2} |", number(before), ours / before)
            }
            (true, ..) => " – | – |".to_owned(),
        };
        println!(
            "| {} | {} | {} |{before} {} | {} | {} | {} |",
            figure.name,
            figure.unit,
            shown(Kind::Leasehold),
            shown(Kind::OpenBao),
            shown(Kind::PostgreSql),
            ratio(figure, ours, side(Kind::OpenBao).or(side(Kind::PostgreSql))),
            figure.wanted
        );
    }
}
