//! Numbers against density as an SVG, a line with a band a curve.

use plotters::coord::Shift;
use plotters::prelude::*;

use super::report::Report;
use crate::diagnostic::Diagnostic;
use crate::driver::pipeline::Variant;
use crate::error::{Error, ErrorKind};

/// Pixels.
const SIZE: (u32, u32) = (860, 520);

/// Points of a curve up to which each has a dot.
const DOTS: usize = 50;

/// Told apart also by those who do not see all colours: Okabe and Ito, "Color universal design", 2008.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(204, 121, 167),
    RGBColor(0, 158, 115),
    RGBColor(213, 94, 0),
    RGBColor(86, 180, 233),
];

/// What is drawn.
pub(crate) struct Chart {
    pub(crate) title: String,
    pub(crate) subtitle: String,
    pub(crate) x: &'static str,
    pub(crate) y: &'static str,
    pub(crate) curves: Vec<Curve>,
}

/// One curve, by ascending x.
pub(crate) struct Curve {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
    /// The lower and the upper edge at each point, or nothing.
    pub(crate) band: Vec<(f64, f64)>,
}

/// Draws the forms of a report. Equal numbers give equal text.
///
/// # Errors
/// If the plot cannot be drawn: a fault of skipc.
pub fn svg(report: &Report) -> Result<String, Error> {
    let curves = Variant::ALL.into_iter().map(|form| curve(report, form));
    let Report { model, tokens, threads, .. } = report;
    let plural = if *threads == 1 { "thread" } else { "threads" };
    draw(&[Chart {
        title: format!("{model}: {tokens} tokens, {threads} {plural}"),
        subtitle: report.processor.clone(),
        x: "density: share of the tokens that each router executes",
        y: "milliseconds a step: median, band from the 10th to the 90th percentile",
        curves: curves.collect(),
    }])
}

/// A form at all densities.
fn curve(report: &Report, form: Variant) -> Curve {
    let mut curve = Curve { name: form.name().to_owned(), points: Vec::new(), band: Vec::new() };
    for point in &report.points {
        for timed in point.forms.iter().filter(|timed| timed.form == form) {
            curve.points.push((point.density, timed.times.median_s * 1e3));
            curve.band.push((timed.times.p10_s * 1e3, timed.times.p90_s * 1e3));
        }
    }
    curve
}

/// Draws charts, one below the other.
///
/// # Errors
/// As [`svg`].
pub(crate) fn draw(charts: &[Chart]) -> Result<String, Error> {
    let mut text = String::new();
    draw_to(charts, &mut text).map_err(|error| {
        Error::new(ErrorKind::Internal, Diagnostic::new("bench::plot", format!("the plot: {error}")))
    })?;
    Ok(text)
}

fn draw_to(charts: &[Chart], text: &mut String) -> Result<(), String> {
    let size = (SIZE.0, SIZE.1 * u32::try_from(charts.len()).unwrap_or(1));
    let area = SVGBackend::with_string(text, size).into_drawing_area();
    area.fill(&WHITE).map_err(in_words)?;
    for (chart, part) in charts.iter().zip(area.split_evenly((charts.len(), 1))) {
        draw_part(chart, &part)?;
    }
    area.present().map_err(in_words)
}

fn draw_part(chart: &Chart, area: &DrawingArea<SVGBackend<'_>, Shift>) -> Result<(), String> {
    let points = chart.curves.iter().flat_map(|curve| &curve.points);
    let widest = points.clone().map(|point| point.0).fold(0.0, f64::max);
    let widest = if widest > 0.0 { widest } else { 1.0 };
    let edges = chart.curves.iter().flat_map(|curve| &curve.band);
    let highest = points.map(|point| point.1).chain(edges.map(|edge| edge.1)).fold(0.0, f64::max);
    let title = area.titled(&chart.title, ("sans-serif", 18)).map_err(in_words)?;
    let title = title.titled(&chart.subtitle, ("sans-serif", 13)).map_err(in_words)?;
    let mut plot = ChartBuilder::on(&title)
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..widest, 0.0..highest.max(f64::MIN_POSITIVE) * 1.05)
        .map_err(in_words)?;
    plot.configure_mesh().x_desc(chart.x).y_desc(chart.y).max_light_lines(0).draw().map_err(in_words)?;
    for (curve, colour) in chart.curves.iter().zip(COLOURS.iter().cycle()) {
        if curve.points.is_empty() {
            continue;
        }
        if !curve.band.is_empty() {
            let edges = curve.points.iter().zip(&curve.band);
            let upper = edges.clone().map(|(point, edge)| (point.0, edge.1));
            let lower = edges.rev().map(|(point, edge)| (point.0, edge.0));
            let band: Vec<(f64, f64)> = upper.chain(lower).collect();
            plot.draw_series(std::iter::once(Polygon::new(band, colour.mix(0.18)))).map_err(in_words)?;
        }
        plot.draw_series(LineSeries::new(curve.points.clone(), colour.stroke_width(2)))
            .map_err(in_words)?
            .label(curve.name.as_str())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(2)));
        let dots = curve
            .points
            .iter()
            .filter(|_| curve.points.len() <= DOTS)
            .map(|place| Circle::new(*place, 3, colour.filled()));
        plot.draw_series(dots).map_err(in_words)?;
    }
    let labels = &mut plot.configure_series_labels();
    labels.position(SeriesLabelPosition::LowerRight).background_style(WHITE.mix(0.8)).border_style(BLACK);
    labels.label_font(("sans-serif", 14)).draw().map_err(in_words)
}

/// The library's errors borrow the text that is drawn into.
fn in_words(error: impl std::fmt::Display) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::cost::Cost;
    use super::super::report::Point;
    use super::*;

    fn report(densities: &[f64], forms: &[Variant]) -> Report {
        let times = |density: f64, form: Variant| {
            let median = Duration::from_secs_f64(1e-3 * (density + form.name().len() as f64));
            vec![median / 2, median, median * 2]
        };
        let point = |density: &f64| {
            let forms = forms.iter().map(|form| (*form, times(*density, *form), Cost::default()));
            Point::new(*density, 0.0, forms.collect())
        };
        Report {
            model: "some <model> & more".to_owned(),
            source: "m.toml".to_owned(),
            weights: "random".to_owned(),
            tokens: 64,
            sequences: vec![64],
            routers: 2,
            threads: 1,
            processor: "Some Processor".to_owned(),
            code: "cpu".to_owned(),
            rounds: 1,
            input_sets: 3,
            tolerance: 2e-4,
            points: densities.iter().map(point).collect(),
            break_even: None,
        }
    }

    #[test]
    fn equal_numbers_give_equal_text() {
        let text = svg(&report(&[0.25, 0.5, 1.0], &Variant::ALL)).unwrap();
        assert_eq!(text, svg(&report(&[0.25, 0.5, 1.0], &Variant::ALL)).unwrap());
        for word in ["<svg", "fused", "unfused", "masked", "64 tokens, 1 thread", "Some Processor", "density"]
        {
            assert!(text.contains(word), "{word}: {text}");
        }
        assert!(text.contains("some &lt;model&gt; &amp; more"), "{text}");
        assert_eq!(text.matches("<polygon").count(), 3);
    }

    #[test]
    fn little_to_draw_is_drawn() {
        for (densities, forms) in [(&[0.5][..], &[Variant::Masked][..]), (&[0.0], &Variant::ALL), (&[], &[])]
        {
            assert!(svg(&report(densities, forms)).unwrap().ends_with("</svg>\n"));
        }
    }
}
