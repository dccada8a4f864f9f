//! The plots, as SVG.

use anyhow::anyhow;
use plotters::prelude::*;

use super::{Gossip, arrivals::Arrivals, changes::Changes, owners::Owners, table::ratio};

const SIZE: (u32, u32) = (720, 420);

/// Told apart by the colour-blind, too.
const COLOURS: [RGBColor; 3] = [RGBColor(0, 114, 178), RGBColor(213, 94, 0), RGBColor(0, 158, 115)];

/// A line of a plot.
struct Line {
    label: String,
    points: Vec<(f64, f64)>,
    /// Whether each point is a measurement to be seen, not one of many.
    marked: bool,
}

/// Axes: what they show, and up to where they go.
struct Axes<'a> {
    title: &'a str,
    x: (&'a str, f64),
    y: (&'a str, f64),
}

/// Records of each owner, sorted.
pub(super) fn records(owners: &Owners) -> anyhow::Result<(String, String)> {
    let line = |region: &super::owners::Region| {
        let records = region.records.iter().enumerate();
        let points = records.map(|(n, records)| (float(n + 1), float(*records))).collect();
        Line { label: region.name.clone(), points, marked: true }
    };
    let lines: Vec<Line> = owners.regions.iter().map(line).collect();
    let title = "Presence records per owner";
    let axes = axes(title, "owners of the region, most loaded first", "records", &lines);
    Ok(("records-per-owner.svg".to_owned(), draw(&axes, &lines)?))
}

/// How much of what a change moves was told of, over time.
pub(super) fn republication(changes: &Changes) -> anyhow::Result<(String, String)> {
    let all = [("loss", &changes.loss), ("join", &changes.join), ("drain", &changes.drain)];
    let lines: Vec<Line> = all
        .into_iter()
        .map(|(label, change)| {
            // One point of a hundred is enough to see the shape.
            let step = change.told.len().div_ceil(200).max(1);
            let told = change.told.iter().enumerate();
            let sampled = told.filter(|(n, _)| (n + 1) % step == 0 || n + 1 == change.told.len());
            let percent = |n: usize| 100.0 * ratio(n + 1, change.told.len());
            let points = sampled.map(|(n, at)| (at.as_secs_f64() * 1e3, percent(n)));
            let points = std::iter::once((0.0, 0.0)).chain(points).collect();
            let label = format!("{label}: {} records", super::table::whole(change.records));
            Line { label, points, marked: false }
        })
        .collect();
    let title = "Records told to their new owners after a change of one region's ring";
    let x = "ms since the first node learned of it";
    Ok(("republication.svg".to_owned(), draw(&axes(title, x, "% of the records", &lines), &lines)?))
}

/// What gossip costs a node, by their number.
pub(super) fn gossip(sizes: &[Gossip]) -> anyhow::Result<(String, String)> {
    let points = |value: fn(&Gossip) -> f64| {
        sizes.iter().map(|size| (float(size.nodes), value(size))).collect::<Vec<_>>()
    };
    let points = points(|size| size.bytes_per_second / 1e3);
    let lines = [Line { label: "sent by a node".to_owned(), points, marked: true }];
    let axes = axes("Gossip", "nodes", "kB/s", &lines);
    Ok(("gossip-bytes.svg".to_owned(), draw(&axes, &lines)?))
}

/// Control frames of a first arrival, by the number of nodes.
pub(super) fn arrivals(all: &[Arrivals]) -> anyhow::Result<(String, String)> {
    let mut regions: Vec<usize> = all.iter().map(|arrivals| arrivals.regions).collect();
    regions.sort_unstable();
    regions.dedup();
    let line = |number: usize| {
        let of_them = all.iter().filter(|arrivals| arrivals.regions == number);
        let points = of_them.map(|arrivals| (float(arrivals.nodes), arrivals.first.control));
        let label = format!("{number} region{}", if number == 1 { "" } else { "s" });
        Line { label, points: points.collect(), marked: true }
    };
    let lines: Vec<Line> = regions.into_iter().map(line).collect();
    let axes = axes("Control frames of a first arrival", "nodes", "frames", &lines);
    Ok(("frames-per-arrival.svg".to_owned(), draw(&axes, &lines)?))
}

/// Axes that hold all lines, and begin at zero.
fn axes<'a>(title: &'a str, x: &'a str, y: &'a str, lines: &[Line]) -> Axes<'a> {
    let points = || lines.iter().flat_map(|line| &line.points);
    let x_most = points().map(|(x, _)| *x).fold(1.0, f64::max);
    let y_most = points().map(|(_, y)| *y).fold(1.0, f64::max);
    Axes { title, x: (x, x_most * 1.02), y: (y, y_most * 1.1) }
}

fn draw(axes: &Axes<'_>, lines: &[Line]) -> anyhow::Result<String> {
    let mut svg = String::new();
    // The library's errors borrow from the drawing.
    try_draw(&mut svg, axes, lines).map_err(|error| anyhow!("{}: {error}", axes.title))?;
    Ok(svg)
}

fn try_draw(
    svg: &mut String,
    axes: &Axes<'_>,
    lines: &[Line],
) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let font = "sans-serif";
    let mut chart = ChartBuilder::on(&area)
        .caption(axes.title, (font, 18))
        .margin(14)
        .x_label_area_size(42)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..axes.x.1, 0.0..axes.y.1)?;
    chart
        .configure_mesh()
        .x_desc(axes.x.0)
        .y_desc(axes.y.0)
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| format!("{y:.0}"))
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .label_style((font, 13))
        .axis_desc_style((font, 14))
        .draw()?;
    for (line, colour) in lines.iter().zip(COLOURS.into_iter().cycle()) {
        let style = colour.stroke_width(2);
        chart
            .draw_series(LineSeries::new(line.points.iter().copied(), style))?
            .label(&line.label)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
        if line.marked {
            let dots = line.points.iter().map(|point| Circle::new(*point, 3, colour.filled()));
            chart.draw_series(dots)?;
        }
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.9))
        .border_style(BLACK.mix(0.3))
        .label_font((font, 13))
        .margin(10)
        .draw()?;
    area.present()?;
    Ok(())
}

fn float(number: usize) -> f64 {
    ratio(number, 1_usize)
}
