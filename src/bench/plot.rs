//! Time against density as an SVG, a line with a band a form.

use plotters::prelude::*;

use super::report::{Report, Timed};
use crate::diagnostic::Diagnostic;
use crate::driver::pipeline::Variant;
use crate::error::{Error, ErrorKind};

/// Pixels.
const SIZE: (u32, u32) = (860, 520);

/// Draws a report. Equal numbers give equal text.
///
/// # Errors
/// If the plot cannot be drawn: a fault of skipc.
pub fn svg(report: &Report) -> Result<String, Error> {
    let mut text = String::new();
    draw(report, &mut text).map_err(|error| {
        Error::new(ErrorKind::Internal, Diagnostic::new("bench::plot", format!("the plot: {error}")))
    })?;
    Ok(text)
}

fn draw(report: &Report, text: &mut String) -> Result<(), String> {
    let area = SVGBackend::with_string(text, SIZE).into_drawing_area();
    area.fill(&WHITE).map_err(in_words)?;
    let timed = report.points.iter().flat_map(|point| &point.forms);
    let slowest = timed.map(|timed| timed.times.p90_s).fold(0.0, f64::max) * 1e3;
    let highest = report.points.last().map_or(1.0, |point| point.density).max(f64::MIN_POSITIVE);
    let title = area.titled(&title(report), ("sans-serif", 18)).map_err(in_words)?;
    let title = title.titled(&report.processor, ("sans-serif", 13)).map_err(in_words)?;
    let mut chart = ChartBuilder::on(&title)
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..highest, 0.0..slowest.max(f64::MIN_POSITIVE) * 1.05)
        .map_err(in_words)?;
    chart
        .configure_mesh()
        .x_desc("density: share of the tokens that each router executes")
        .y_desc("milliseconds a step: median, band from the 10th to the 90th percentile")
        .max_light_lines(0)
        .draw()
        .map_err(in_words)?;
    for form in Variant::ALL {
        let line = line(report, form);
        if line.is_empty() {
            continue;
        }
        let (colour, ms) = (colour(form), 1e3);
        let upper = line.iter().map(|(density, timed)| (*density, timed.times.p90_s * ms));
        let lower = line.iter().rev().map(|(density, timed)| (*density, timed.times.p10_s * ms));
        let band: Vec<(f64, f64)> = upper.chain(lower).collect();
        chart.draw_series(std::iter::once(Polygon::new(band, colour.mix(0.18)))).map_err(in_words)?;
        let medians: Vec<(f64, f64)> =
            line.iter().map(|(density, timed)| (*density, timed.times.median_s * ms)).collect();
        chart
            .draw_series(LineSeries::new(medians.clone(), colour.stroke_width(2)))
            .map_err(in_words)?
            .label(form.name())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(2)));
        let dots = medians.into_iter().map(|place| Circle::new(place, 3, colour.filled()));
        chart.draw_series(dots).map_err(in_words)?;
    }
    let labels = &mut chart.configure_series_labels();
    labels.position(SeriesLabelPosition::LowerRight).background_style(WHITE.mix(0.8)).border_style(BLACK);
    labels.label_font(("sans-serif", 14)).draw().map_err(in_words)?;
    title.present().map_err(in_words)
}

fn title(report: &Report) -> String {
    let Report { model, tokens, threads, .. } = report;
    let plural = if *threads == 1 { "thread" } else { "threads" };
    format!("{model}: {tokens} tokens, {threads} {plural}")
}

/// A form at all densities.
fn line(report: &Report, form: Variant) -> Vec<(f64, &Timed)> {
    let mut line = Vec::new();
    for point in &report.points {
        let timed = point.forms.iter().filter(|timed| timed.form == form);
        line.extend(timed.map(|timed| (point.density, timed)));
    }
    line
}

/// Told apart also by those who do not see all colours: Okabe and Ito, "Color universal design", 2008.
fn colour(form: Variant) -> RGBColor {
    match form {
        Variant::Fused => RGBColor(0, 114, 178),
        Variant::Unfused => RGBColor(230, 159, 0),
        Variant::Masked => RGBColor(204, 121, 167),
    }
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
