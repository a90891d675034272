//! Kernels under the roof of the machine: what they reach against how much they compute for each byte.

use plotters::prelude::*;

use super::profile::{Machine, Sum};
use crate::diagnostic::Diagnostic;
use crate::error::{Error, ErrorKind};

/// Pixels.
const SIZE: (u32, u32) = (860, 520);

/// Draws the kernels that compute something. Equal numbers give equal text.
///
/// # Errors
/// If the plot cannot be drawn: a fault of skipc.
pub fn svg(title: &str, machine: &Machine, kernels: &[Sum]) -> Result<String, Error> {
    let mut text = String::new();
    draw(title, machine, kernels, &mut text).map_err(|error| {
        Error::new(ErrorKind::Internal, Diagnostic::new("bench::plot", format!("the plot: {error}")))
    })?;
    Ok(text)
}

fn draw(title: &str, machine: &Machine, kernels: &[Sum], text: &mut String) -> Result<(), String> {
    let dots: Vec<(f64, f64, &Sum)> = kernels
        .iter()
        .filter(|sum| sum.flops > 0.0 && sum.bytes > 0.0 && sum.wall_ns > 0)
        .map(|sum| (sum.flops / sum.bytes, sum.gflops(), sum))
        .collect();
    let least = dots.iter().map(|dot| dot.1).fold(machine.gflops, f64::min) / 2.0;
    let widest = dots.iter().map(|dot| dot.0).fold(machine.gflops / machine.gbytes * 4.0, f64::max) * 1.5;
    let narrowest = dots.iter().map(|dot| dot.0).fold(machine.gflops / machine.gbytes / 4.0, f64::min) / 1.5;
    let area = SVGBackend::with_string(text, SIZE).into_drawing_area();
    area.fill(&WHITE).map_err(in_words)?;
    let area = area.titled(title, ("sans-serif", 18)).map_err(in_words)?;
    let mut plot = ChartBuilder::on(&area)
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(
            (narrowest..widest).log_scale(),
            (least.max(f64::MIN_POSITIVE)..machine.gflops * 2.0).log_scale(),
        )
        .map_err(in_words)?;
    plot.configure_mesh()
        .x_desc("operations for each byte that is read or written")
        .y_desc("G operations a second")
        .max_light_lines(0)
        .draw()
        .map_err(in_words)?;
    let roof = |x: f64| (x * machine.gbytes).min(machine.gflops);
    let ridge = machine.gflops / machine.gbytes;
    let line = [narrowest, ridge, widest].map(|x| (x, roof(x)));
    plot.draw_series(LineSeries::new(line, BLACK.stroke_width(2))).map_err(in_words)?;
    let place = (ridge, machine.gflops * 1.25);
    let label = format!("{:.0} GFLOP/s, {:.1} GB/s at most", machine.gflops, machine.gbytes);
    plot.draw_series([Text::new(label, place, ("sans-serif", 13))]).map_err(in_words)?;
    let longest = dots.iter().map(|dot| dot.2.wall_ns).max().unwrap_or(1).max(1);
    let colour = RGBColor(0, 114, 178);
    for (x, y, sum) in dots {
        let size = 3 + (9.0 * (sum.wall_ns as f64 / longest as f64).sqrt()) as i32;
        plot.draw_series([Circle::new((x, y), size, colour.mix(0.6).filled())]).map_err(in_words)?;
        let name = sum.name.split('_').next().unwrap_or_default().to_owned();
        plot.draw_series([Text::new(name, (x * 1.04, y), ("sans-serif", 12))]).map_err(in_words)?;
    }
    area.present().map_err(in_words)
}

/// The library's errors borrow the text that is drawn into.
fn in_words(error: impl std::fmt::Display) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_stand_under_the_roof() {
        let machine = Machine { threads: 2, gflops: 100.0, gbytes: 20.0, about: "measured" };
        let kernel =
            |name: &str, flops| Sum { name: name.to_owned(), runs: 1, wall_ns: 1000, flops, bytes: 500.0 };
        let text = svg("k <1>", &machine, &[kernel("k00_gemm", 5e4), kernel("k01_copy", 0.0)]).unwrap();
        assert!(text.contains("k00") && !text.contains("k01"), "what computes nothing has no place: {text}");
        assert!(text.contains("100 GFLOP/s, 20.0 GB/s") && text.contains("k &lt;1&gt;"), "{text}");
        assert!(svg("nothing", &machine, &[]).unwrap().ends_with("</svg>\n"));
    }
}
