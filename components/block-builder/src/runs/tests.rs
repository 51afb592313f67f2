use super::*;

type Traces = Vec<(TraceId, Vec<Vec<u8>>)>;

fn traces(sorter: &Sorter, tenant: u32, max_trace_bytes: u64) -> (Traces, usize) {
    let mut found = Vec::new();
    let mut refused = 0;
    sorter
        .for_each_trace::<io::Error>(
            tenant,
            max_trace_bytes,
            |id, chunks| {
                found.push((id, chunks.iter().map(|chunk| chunk.to_vec()).collect()));
                Ok(())
            },
            |_, _| refused += 1,
        )
        .unwrap();
    (found, refused)
}

/// Fills a sorter; the chunk of trace `id` number `n` is told by its content.
fn filled(folder: &Path, limit_bytes: u64) -> Sorter {
    let mut sorter = Sorter::new(folder, limit_bytes);
    let tenants = [sorter.tenant("b"), sorter.tenant("a")];
    let mut state = 7_u32;
    for n in 0..5000_u32 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let id = TraceId::from_padded(&(state >> 22).to_be_bytes());
        let mut chunk = n.to_be_bytes().to_vec();
        chunk.resize(4 + (state >> 8) as usize % 300, 1);
        let tenant = tenants[(state >> 16) as usize % 2];
        sorter.push(tenant, id, &chunk).unwrap();
    }
    sorter
        .push(tenants[0], TraceId::default(), &vec![9; 5 << 20])
        .unwrap();
    sorter.finish();
    sorter
}

#[test]
fn files_give_what_memory_gives() {
    let folder = tempfile::tempdir().unwrap();
    let in_memory = filled(folder.path(), u64::MAX);
    let spilled = filled(folder.path(), 100_000);
    assert_eq!(in_memory.run_count(), 0);
    assert!(spilled.run_count() > 5, "{}", spilled.run_count());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "no names");
    let names: Vec<_> = spilled
        .tenants()
        .map(|(name, _)| name.to_string())
        .collect();
    assert_eq!(names, ["a", "b"]);
    for tenant in [0, 1] {
        for limit in [u64::MAX, 400] {
            let (expected, refused) = traces(&in_memory, tenant, limit);
            assert!(expected.is_sorted_by(|one, other| one.0 < other.0));
            for (_, chunks) in &expected {
                let numbers = chunks.iter().map(|chunk| &chunk[..4]);
                assert!(numbers.is_sorted(), "in order of arrival");
            }
            assert_eq!(refused > 0, limit == 400);
            assert_eq!(traces(&spilled, tenant, limit), (expected, refused));
        }
        let count = in_memory.count_traces(tenant).unwrap();
        assert_eq!(count, traces(&in_memory, tenant, u64::MAX).0.len() as u64);
        assert_eq!(spilled.count_traces(tenant).unwrap(), count);
    }
    assert_eq!(in_memory.count_traces(7).unwrap(), 0);
}

#[test]
fn a_section_that_is_little_more_than_memory_holds_is_hardly_written() {
    const CHUNK_BYTES: usize = 1 << 20;
    let folder = tempfile::tempdir().unwrap();
    let limit = 64 * held_bytes(CHUNK_BYTES);
    let mut sorter = Sorter::new(folder.path(), limit);
    let tenant = sorter.tenant("a");
    let push = |sorter: &mut Sorter, n: u32| {
        // Two chunks of a trace lie far from each other.
        let id = TraceId::from_padded(&(n % 150).to_be_bytes());
        let mut chunk = n.to_be_bytes().to_vec();
        chunk.resize(CHUNK_BYTES, 1);
        sorter.push(tenant, id, &chunk).unwrap();
    };
    // Chunks that each run took.
    let mut runs = Vec::new();
    for n in 0..300 {
        push(&mut sorter, n);
        if sorter.run_count() > runs.len() {
            runs.push(64 - sorter.buffered_bytes / held_bytes(CHUNK_BYTES) + 1);
        }
        assert!(sorter.buffered_bytes <= limit);
    }
    assert_eq!(runs, [8, 16, 32, 64, 64, 64]);
    sorter.finish();
    let (found, _) = traces(&sorter, tenant, u64::MAX);
    assert_eq!(found.len(), 150);
    assert_eq!(sorter.count_traces(tenant).unwrap(), 150);
    for (n, (_, chunks)) in found.iter().enumerate() {
        let numbers: Vec<_> = chunks.iter().map(|chunk| &chunk[..4]).collect();
        let n = n as u32;
        assert_eq!(numbers, [n.to_be_bytes(), (n + 150).to_be_bytes()]);
    }
}

#[test]
fn memory_is_used_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut sorter = filled(folder.path(), 100_000);
    sorter.clear();
    assert_eq!(sorter.tenants().count(), 0);
    let tenant = sorter.tenant("c");
    sorter.push(tenant, TraceId::default(), b"one").unwrap();
    sorter.finish();
    let expected = vec![(TraceId::default(), vec![b"one".to_vec()])];
    assert_eq!(traces(&sorter, tenant, u64::MAX), (expected, 0));
}
