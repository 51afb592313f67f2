//! What was measured, as tables or as JSON.

use serde_json::{Value, json};

use crate::{classes::Class, data::Data, measure::Figures};

/// A class with what it costs, and what it costs another binary.
pub(crate) struct Row {
    pub(crate) class: Class,
    pub(crate) figures: Figures,
    pub(crate) beside: Option<Figures>,
}

/// All classes on one size of data.
pub(crate) struct Measured {
    pub(crate) data: Data,
    pub(crate) rows: Vec<Row>,
    /// Load of the machine before and after.
    pub(crate) loads: [f64; 2],
}

fn figures_json(figures: &Figures) -> Value {
    json!({
        "results": figures.answer.len(),
        "cold_ms": figures.cold_ms,
        "warm_p50_ms": figures.warm_p50_ms,
        "repeated_p50_ms": figures.repeated_p50_ms,
        "cold_cpu_ms": figures.cold_cpu_ms,
        "warm_cpu_ms": figures.warm_cpu_ms,
        "gets": figures.gets,
        "read_bytes": figures.read_bytes,
        "peak_resident_bytes": figures.peak_resident_bytes,
        "allocations": figures.allocated.map(|allocated| allocated.times),
        "allocated_bytes": figures.allocated.map(|allocated| allocated.bytes),
    })
}

/// One object for all sizes.
pub(crate) fn to_json(sizes: &[Measured]) -> Value {
    let size = |measured: &Measured| {
        let classes = measured.rows.iter().map(|row| {
            let mut class = figures_json(&row.figures);
            class["class"] = json!(row.class.name);
            class["query"] = json!(row.class.query);
            if let Some(beside) = &row.beside {
                class["beside"] = figures_json(beside);
                class["agreement"] = json!(agreement(row, beside));
            }
            class
        });
        json!({
            "spans": measured.data.spans,
            "traces": measured.data.traces,
            "blocks": measured.data.blocks,
            "stored_bytes": measured.data.stored_bytes,
            "loads": measured.loads,
            "classes": classes.collect::<Vec<_>>(),
        })
    };
    json!({ "sizes": sizes.iter().map(size).collect::<Vec<_>>() })
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Prints tables.
pub(crate) fn print(sizes: &[Measured]) {
    for measured in sizes {
        print_table(measured);
        if measured.rows.iter().any(|row| row.beside.is_some()) {
            print_beside(&measured.rows);
        }
    }
    if let [whole, tenth] = sizes {
        print_growth(&whole.rows, &tenth.rows);
    }
}

fn print_table(measured: &Measured) {
    let Measured { data, rows, loads } = measured;
    println!(
        "{} spans, {} traces, {} blocks, {:.1} MiB; load of the machine {:.1} before, {:.1} after\n",
        data.spans,
        data.traces,
        data.blocks,
        mib(data.stored_bytes),
        loads[0],
        loads[1]
    );
    println!(
        "| query | results | cold, ms | warm p50, ms | repeated, ms | CPU cold, ms | CPU warm, ms | GETs | read, MiB | peak, MiB | allocations | allocated, MiB |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|");
    for Row { class, figures, .. } in rows {
        println!(
            "| {} | {} | {:.1} | {:.1} | {:.1} | {:.0} | {:.1} | {} | {:.2} | {:.0} | {} |",
            class.name,
            figures.answer.len(),
            figures.cold_ms,
            figures.warm_p50_ms,
            figures.repeated_p50_ms,
            figures.cold_cpu_ms,
            figures.warm_cpu_ms,
            figures.gets,
            mib(figures.read_bytes),
            mib(figures.peak_resident_bytes),
            figures
                .allocated
                .map_or("– | –".to_owned(), |allocated| format!(
                    "{:.0} | {:.2}",
                    allocated.times,
                    allocated.bytes / f64::from(1 << 20)
                ))
        );
    }
    println!();
}

/// The other binary's figures, and how many times less ours are.
fn print_beside(rows: &[Row]) {
    println!(
        "| query | CPU, ms | beside, CPU, ms | times less | warm p50, ms | beside, ms | GETs | beside, GETs | beside, read, MiB | beside, peak, MiB | answers |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    for row in rows {
        let (figures, Some(beside)) = (&row.figures, &row.beside) else {
            continue;
        };
        println!(
            "| {} | {:.1} | {:.1} | {} | {:.1} | {:.1} | {} | {} | {:.2} | {:.0} | {} |",
            row.class.name,
            figures.warm_cpu_ms,
            beside.warm_cpu_ms,
            times(beside.warm_cpu_ms, figures.warm_cpu_ms),
            figures.warm_p50_ms,
            beside.warm_p50_ms,
            figures.gets,
            beside.gets,
            mib(beside.read_bytes),
            mib(beside.peak_resident_bytes),
            agreement(row, beside)
        );
    }
    println!();
}

/// Whether both found the same, and where not.
fn agreement(row: &Row, beside: &Figures) -> String {
    let (ours, theirs) = (&row.figures.answer, &beside.answer);
    let both = ours.names.intersection(&theirs.names).count();
    let (our_count, their_count) = (ours.names.len(), theirs.names.len());
    if both != our_count || both != their_count {
        return format!("{our_count}, beside {their_count}, in both {both}");
    }
    let tolerance = ours.sum.abs().max(theirs.sum.abs()) * 1e-9;
    if (ours.sum - theirs.sum).abs() > tolerance {
        return format!(
            "{our_count} alike, sum of samples {} beside {}",
            ours.sum, theirs.sum
        );
    }
    format!("{our_count} alike")
}

fn times(more: f64, less: f64) -> String {
    if more > 0.0 && less > 0.0 {
        format!("{:.1}×", more / less)
    } else {
        "–".to_owned()
    }
}

/// How much more the whole has and costs than its tenth.
fn print_growth(whole: &[Row], tenth: &[Row]) {
    println!("| query | results | CPU warm | GETs | bytes read |\n|---|---|---|---|---|");
    for (whole, tenth) in whole.iter().zip(tenth) {
        let (name, whole, tenth) = (whole.class.name, &whole.figures, &tenth.figures);
        println!(
            "| {name} | {} | {} | {} | {} |",
            times(whole.answer.len() as f64, tenth.answer.len() as f64),
            times(whole.warm_cpu_ms, tenth.warm_cpu_ms),
            times(whole.gets as f64, tenth.gets as f64),
            times(whole.read_bytes as f64, tenth.read_bytes as f64)
        );
    }
}
