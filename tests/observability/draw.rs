//! Draws the dashboard's panels from what Prometheus answered, as Grafana would lay them out, into
//! one SVG for each row of the dashboard.

use plotters::{
    coord::Shift,
    prelude::{
        ChartBuilder, Circle, DrawingArea, EmptyElement, IntoDrawingArea, IntoFont, LineSeries,
        Palette, Palette99, PathElement, RGBColor, SVGBackend, SeriesLabelPosition, Text, WHITE,
    },
    style::Color,
};

/// Panels beside each other, and their size in pixels.
const COLUMNS: usize = 4;
const PANEL: (u32, u32) = (330, 210);

/// Names shown in a panel.
const MOST_NAMES: usize = 8;

/// Points of a line, as seconds since the begin and value.
pub type Line = (String, Vec<(f64, f64)>);

pub struct Panel {
    pub title: String,
    /// Grafana's name of the unit.
    pub unit: String,
    pub lines: Vec<Line>,
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A row of the dashboard as SVG.
pub fn row(title: &str, panels: &[Panel]) -> String {
    let mut out = String::new();
    let rows = panels.len().div_ceil(COLUMNS);
    let size = (
        PANEL.0 * COLUMNS.min(panels.len()) as u32,
        PANEL.1 * rows as u32 + 30,
    );
    {
        let root = SVGBackend::with_string(&mut out, size).into_drawing_area();
        root.fill(&WHITE).unwrap();
        let root = root.titled(title, ("sans-serif", 18)).unwrap();
        let areas = root.split_evenly((rows, COLUMNS.min(panels.len())));
        for (panel, area) in panels.iter().zip(&areas) {
            draw(panel, area);
        }
        root.present().unwrap();
    }
    out
}

fn draw(panel: &Panel, area: &Area<'_>) {
    let points = || panel.lines.iter().flat_map(|(_, points)| points);
    let most = |part: fn(&(f64, f64)) -> f64| points().map(part).fold(0.0, f64::max);
    let (end, highest) = (most(|it| it.0).max(1.0), most(|it| it.1));
    // Room above the lines for their names.
    let room = 1.1 + 0.08 * panel.lines.len().min(MOST_NAMES) as f64;
    let highest = if highest > 0.0 { highest * room } else { 1.0 };
    let mut chart = ChartBuilder::on(area)
        .caption(&panel.title, ("sans-serif", 13))
        .margin(8)
        .x_label_area_size(18)
        .y_label_area_size(58)
        .build_cartesian_2d(0.0..end, 0.0..highest)
        .unwrap();
    chart
        .configure_mesh()
        .light_line_style(RGBColor(245, 245, 245))
        .bold_line_style(RGBColor(225, 225, 225))
        .x_labels(5)
        .y_labels(4)
        .label_style(("sans-serif", 10))
        .x_label_formatter(&|seconds| format!("{seconds:.0} s"))
        .y_label_formatter(&|value| shown(*value, &panel.unit))
        .draw()
        .unwrap();
    if panel.lines.is_empty() {
        let place = EmptyElement::at((end / 2.0, highest / 2.0));
        let text = Text::new(
            "nothing, as it should be",
            (-60, 0),
            ("sans-serif", 11).into_font(),
        );
        chart.draw_series([place + text]).unwrap();
        return;
    }
    for (number, (name, points)) in panel.lines.iter().enumerate() {
        let color = Palette99::pick(number).to_rgba();
        let mark = move |(x, y)| PathElement::new([(x, y), (x + 10, y)], color.stroke_width(2));
        let line = LineSeries::new(points.iter().copied(), color.stroke_width(1));
        let line = chart.draw_series(line).unwrap();
        if number < MOST_NAMES {
            line.label(name).legend(mark);
        }
        if let [only] = points.as_slice() {
            chart.draw_series([Circle::new(*only, 2, color)]).unwrap();
        }
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.7))
        .label_font(("sans-serif", 9))
        .draw()
        .unwrap();
}

fn shown(value: f64, unit: &str) -> String {
    let scaled = |steps: &[(f64, &str)]| {
        let (scale, name) = steps
            .iter()
            .find(|(scale, _)| value.abs() >= *scale)
            .or(steps.last())
            .expect("a unit has steps");
        format!("{:.1} {name}", value / scale)
    };
    match unit {
        "percentunit" => format!("{:.1} %", value * 100.0),
        "s" => scaled(&[(1.0, "s"), (1e-3, "ms"), (1e-6, "µs")]),
        "bytes" | "Bps" | "binBps" => scaled(&[
            (1_073_741_824.0, "GiB"),
            (1_048_576.0, "MiB"),
            (1024.0, "KiB"),
            (1.0, "B"),
        ]),
        "ops" | "reqps" => format!("{value:.1}/s"),
        _ if value < 1.0 => format!("{value:.2}"),
        _ => format!("{value:.0}"),
    }
}
