use proptest::prelude::*;

use super::*;

const RULES: Rules = Rules {
    min_owners: 1,
    min_owners_duration: Duration::from_secs(10),
    delete_inactive_after: Duration::from_secs(3600),
};

fn record(created: i64, state: RecordState, since: i64) -> PartitionRecord {
    PartitionRecord {
        created,
        state,
        since,
        locked: false,
        locked_since: 0,
    }
}

fn live_store(name: &str, partition: i32, owner_since: i64) -> Statement {
    Statement {
        member: name.to_owned(),
        generation: 1,
        alive: true,
        informed: true,
        owner: Some(OwnerRecord {
            partition,
            zone: "a".to_owned(),
            grpc_addr: format!("{name}:9095"),
            state: OwnerState::Active,
            state_since: owner_since,
            owner_since,
            log_was_empty: true,
            read_only: false,
        }),
        partitions: BTreeMap::new(),
        known: BTreeSet::new(),
        built_until: None,
    }
}

fn saying(mut statement: Statement, id: i32, record: PartitionRecord) -> Statement {
    statement.partitions.insert(id, record);
    statement
}

fn owner_of(partition: i32) -> Option<Owned> {
    Some(Owned {
        partition,
        create: true,
        read_only: false,
    })
}

fn next(
    statements: &[Statement],
    owns: Option<Owned>,
    said: &BTreeMap<i32, PartitionRecord>,
    rules: Rules,
    now: i64,
) -> BTreeMap<i32, PartitionRecord> {
    next_records(
        &View::of(statements),
        Speaker {
            owns,
            said,
            listens_since: now,
        },
        rules,
        now,
    )
}

#[test]
fn records_of_a_partition_mean_one() {
    use RecordState::{Active, Deleted, Inactive, Pending};
    let cases: [(&str, Vec<PartitionRecord>, PartitionRecord); 6] = [
        (
            "the latest change counts",
            vec![
                record(1, Active, 20),
                record(1, Inactive, 30),
                record(1, Pending, 1),
            ],
            record(1, Inactive, 30),
        ),
        (
            "in the same second, the one that is further counts",
            vec![record(1, Inactive, 30), record(1, Active, 30)],
            record(1, Inactive, 30),
        ),
        (
            "a deletion counts against what was there before",
            vec![record(1, Inactive, 30), record(1, Deleted, 25)],
            record(1, Deleted, 25),
        ),
        (
            "and not against what was made afterwards",
            vec![
                record(1, Deleted, 25),
                record(26, Pending, 26),
                record(1, Inactive, 20),
            ],
            record(26, Pending, 26),
        ),
        (
            "of two that were made apart, the older counts",
            vec![record(1, Inactive, 30), record(500, Active, 510)],
            record(1, Inactive, 30),
        ),
        (
            "of two deletions, the later",
            vec![
                record(1, Deleted, 25),
                record(9, Deleted, 60),
                record(30, Active, 40),
            ],
            record(9, Deleted, 60),
        ),
    ];
    for (what, records, expected) in cases {
        assert_eq!(merge(&records), Some(expected), "{what}");
    }
    assert_eq!(merge(&[]), None);
}

proptest! {
    #[test]
    fn the_order_of_records_does_not_matter(
        records in prop::collection::vec(
            (0..4_i64, 0..4_usize, 0..6_i64, any::<bool>(), 0..3_i64),
            1..6,
        ),
        rotate in 0..6_usize,
    ) {
        use RecordState::{Active, Deleted, Inactive, Pending};
        let mut records: Vec<PartitionRecord> = records
            .into_iter()
            .map(|(created, state, later, locked, locked_since)| PartitionRecord {
                created,
                state: [Pending, Active, Inactive, Deleted][state],
                since: created + later,
                locked,
                locked_since,
            })
            .collect();
        let expected = merge(&records);
        let by = rotate % records.len();
        records.rotate_left(by);
        // Deletions of the same second differ in what nobody looks at any more.
        let essence = |record: Option<PartitionRecord>| {
            record.map(|record| (record.state, record.since, record.locked))
                .filter(|(state, ..)| *state != Deleted)
        };
        prop_assert_eq!(essence(merge(&records)), essence(expected));
        records.reverse();
        prop_assert_eq!(essence(merge(&records)), essence(expected));
    }
}

#[test]
fn a_lock_has_its_own_time() {
    let locked = record(1, RecordState::Active, 20).with_lock(true, 25);
    let changed = record(1, RecordState::Inactive, 30);
    let merged = merge(&[locked, changed]).unwrap();
    assert_eq!((merged.state, merged.since), (RecordState::Inactive, 30));
    assert!(merged.locked);
    let unlocked = merged.with_lock(false, 20);
    assert!(!merge(&[locked, unlocked]).unwrap().locked);
}

#[test]
fn a_new_partition_waits_for_its_owners() {
    let none = BTreeMap::new();
    let me = live_store("zone-a-0", 0, 100);
    let created = next(std::slice::from_ref(&me), owner_of(0), &none, RULES, 100);
    assert_eq!(created[&0], record(100, RecordState::Pending, 100));

    let me = saying(me, 0, created[&0]);
    let at = |now, min_owners, statements: &[Statement]| {
        let rules = Rules {
            min_owners,
            ..RULES
        };
        next(statements, owner_of(0), &created, rules, now)[&0]
    };
    let alone = [me.clone()];
    assert_eq!(
        at(110, 1, &alone).state,
        RecordState::Pending,
        "not strictly before"
    );
    assert_eq!(at(111, 1, &alone), record(100, RecordState::Active, 111));
    assert_eq!(at(999, 2, &alone).state, RecordState::Pending);
    let both = [me, live_store("zone-b-0", 0, 150)];
    assert_eq!(at(160, 2, &both).state, RecordState::Pending);
    assert_eq!(at(161, 2, &both).state, RecordState::Active);
}

#[test]
fn a_restart_changes_nothing() {
    let none = BTreeMap::new();
    for state in [
        RecordState::Pending,
        RecordState::Active,
        RecordState::Inactive,
    ] {
        let known = record(50, state, 60);
        let before = Statement {
            alive: false,
            ..saying(live_store("zone-a-0", 0, 50), 0, known)
        };
        let after = Statement {
            generation: 2,
            informed: false,
            ..live_store("zone-a-0", 0, 100)
        };
        let said = next(&[before, after], owner_of(0), &none, RULES, 100);
        assert_eq!(said[&0], known);
    }
}

#[test]
fn what_was_said_before_a_restart_counts_until_it_was_heard() {
    let old = Statement {
        alive: false,
        ..saying(
            live_store("zone-a-0", 0, 50),
            0,
            record(50, RecordState::Active, 60),
        )
    };
    let new = |informed| Statement {
        generation: 2,
        informed,
        ..live_store("zone-a-0", 0, 100)
    };
    assert!(
        View::of(&[old.clone(), new(false)])
            .records
            .contains_key(&0)
    );
    assert!(View::of(&[old.clone(), new(true)]).records.is_empty());
    // In any case it is one owner.
    assert_eq!(View::of(&[old, new(true)]).owners(0).len(), 1);
}

#[test]
fn one_that_started_anew_owns_what_it_owned_and_does_not_answer() {
    let inactive = record(50, RecordState::Inactive, 60);
    let before = saying(live_store("monolith", 9, 50), 9, inactive);
    let crashed = Statement {
        alive: false,
        ..before.clone()
    };
    let silent = |generation| Statement {
        member: "monolith".to_owned(),
        generation,
        alive: true,
        ..Statement::default()
    };
    let peer = live_store("zone-a-0", 0, 50);
    // Also after it has started twice.
    for statements in [
        vec![crashed.clone(), silent(2), peer.clone()],
        vec![crashed.clone(), silent(2), silent(3), peer.clone()],
        vec![before.clone(), silent(2), peer.clone()],
    ] {
        let view = View::of(&statements);
        let owners = view.owners(9);
        assert_eq!(owners.len(), 1);
        assert_eq!(owners[0].state, OwnerState::Joining);
        assert!(!owners[0].healthy);
        // Others do not forget a partition whose owner comes back.
        let said = next(
            &statements,
            owner_of(0),
            &BTreeMap::from([(9, inactive)]),
            RULES,
            60 + 2 * 3600,
        );
        assert_eq!(said[&9].state, RecordState::Inactive);
    }
    // Who took its name off has nothing that others lack.
    let left = Statement {
        owner: None,
        ..crashed
    };
    assert!(View::of(&[left, silent(2), peer]).owners(9).is_empty());
}

#[test]
fn what_one_told_of_blocks_before_its_last_start_is_still_true() {
    let told = |generation, built_until| Statement {
        generation,
        built_until,
        ..live_store("zone-a-0", 0, 50)
    };
    let built_until = |statements: &[Statement]| View::of(statements).owners(0)[0].built_until;
    assert_eq!(built_until(&[told(1, Some(7)), told(2, None)]), Some(7));
    assert_eq!(built_until(&[told(1, Some(7)), told(2, Some(6))]), Some(6));
    let silent = Statement {
        informed: false,
        ..told(2, None)
    };
    assert_eq!(built_until(&[told(1, Some(7)), silent]), Some(7));
    let left = Statement {
        owner: None,
        ..told(1, Some(7))
    };
    assert_eq!(built_until(&[left, told(2, None)]), None);
}

#[test]
fn a_reserved_partition_is_read_only_from_its_beginning() {
    let bridge = Some(Owned {
        partition: 9999,
        create: true,
        read_only: true,
    });
    let said = next(
        &[live_store("monolith", 9999, 5)],
        bridge,
        &BTreeMap::new(),
        RULES,
        7,
    );
    assert_eq!(said[&9999].state, RecordState::Inactive);
    let said = next(
        &[saying(live_store("monolith", 9999, 5), 9999, said[&9999])],
        bridge,
        &said,
        RULES,
        900,
    );
    assert_eq!(said[&9999].state, RecordState::Inactive);
}

#[test]
fn a_member_that_waits_for_its_partition_does_not_make_it() {
    let waits = Some(Owned {
        partition: 0,
        create: false,
        read_only: false,
    });
    let me = live_store("zone-a-0", 0, 1);
    assert!(
        next(
            std::slice::from_ref(&me),
            waits,
            &BTreeMap::new(),
            RULES,
            10
        )
        .is_empty()
    );
    let other = saying(
        live_store("zone-b-0", 0, 1),
        0,
        record(1, RecordState::Active, 2),
    );
    let said = next(&[me, other], waits, &BTreeMap::new(), RULES, 10);
    assert_eq!(said[&0].state, RecordState::Active);
}

#[test]
fn an_inactive_partition_goes_when_its_owners_are_gone_and_its_time_is_over() {
    let none = BTreeMap::new();
    let inactive = record(1, RecordState::Inactive, 1000);
    let survivor = |statement| saying(statement, 3, inactive);
    let me = live_store("zone-a-0", 0, 1);
    let said_at =
        |statements: &[Statement], now, rules| next(statements, owner_of(0), &none, rules, now)[&3];
    let ownerless = [survivor(me.clone())];
    assert_eq!(said_at(&ownerless, 4600, RULES), inactive);
    assert_eq!(
        said_at(&ownerless, 4601, RULES),
        record(1, RecordState::Deleted, 4601)
    );
    let never = Rules {
        delete_inactive_after: Duration::ZERO,
        ..RULES
    };
    assert_eq!(said_at(&ownerless, 9_999_999, never), inactive);

    // An owner that crashed is an owner still.
    let crashed = Statement {
        alive: false,
        ..live_store("zone-a-3", 3, 1)
    };
    assert_eq!(
        said_at(&[survivor(me.clone()), crashed], 9999, RULES),
        inactive
    );
    // Active partitions stay, and so do locked ones.
    let active = record(1, RecordState::Active, 1000);
    assert_eq!(
        said_at(&[saying(me.clone(), 3, active)], 9999, RULES),
        active
    );
    let locked = inactive.with_lock(true, 1001);
    assert_eq!(
        said_at(&[saying(me.clone(), 3, locked)], 9999, RULES),
        locked
    );
    // One's own never goes.
    let own = saying(live_store("zone-a-3", 3, 1), 3, inactive);
    assert_eq!(next(&[own], owner_of(3), &none, RULES, 9999)[&3], inactive);
    // Who owns nothing deletes nothing.
    let distributor = Statement {
        member: "distributor".to_owned(),
        ..Statement::default()
    };
    assert!(next(&[distributor, survivor(me)], None, &none, RULES, 9999).is_empty());
}

#[test]
fn the_record_of_a_partition_without_owner_is_kept_by_the_others() {
    let none = BTreeMap::new();
    let active = record(1, RecordState::Active, 20);
    let gone = Statement {
        alive: false,
        owner: None,
        ..saying(live_store("zone-a-1", 1, 1), 1, active)
    };
    let me = saying(live_store("zone-a-0", 0, 1), 0, active);
    let said = next(&[me.clone(), gone], owner_of(0), &none, RULES, 100);
    assert_eq!(said[&1], active);

    // Back, and informed: it keeps its record itself.
    let back = saying(live_store("zone-a-1", 1, 90), 1, active);
    let said = next(
        &[saying(me, 1, active), back],
        owner_of(0),
        &said,
        RULES,
        120,
    );
    assert!(!said.contains_key(&1));
}

#[test]
fn a_change_from_elsewhere_is_kept_until_the_owner_has_heard_it() {
    let active = record(1, RecordState::Active, 20);
    let asked = BTreeMap::from([(0, active.changed(RecordState::Inactive, 50))]);
    let distributor = Statement {
        member: "distributor".to_owned(),
        alive: true,
        partitions: asked.clone(),
        ..Statement::default()
    };
    let owner = live_store("zone-a-0", 0, 1);
    let unaware = saying(owner.clone(), 0, active);
    assert_eq!(
        next(
            &[distributor.clone(), unaware.clone()],
            None,
            &asked,
            RULES,
            51
        ),
        asked
    );
    // The owner takes it over.
    let said = next(
        &[distributor.clone(), unaware],
        owner_of(0),
        &BTreeMap::new(),
        RULES,
        52,
    );
    assert_eq!(said, asked);
    let aware = Statement {
        partitions: said,
        ..owner
    };
    assert!(next(&[distributor, aware], None, &asked, RULES, 53).is_empty());
}

#[test]
fn a_deletion_is_remembered_for_hours() {
    let none = BTreeMap::new();
    let deleted = record(1, RecordState::Deleted, 1000);
    let me = saying(live_store("zone-a-0", 0, 1), 3, deleted);
    let stale = Statement {
        alive: false,
        owner: None,
        ..saying(
            live_store("zone-a-3", 3, 1),
            3,
            record(1, RecordState::Inactive, 90),
        )
    };
    let statements = [me, stale];
    assert!(View::of(&statements).ring().partitions.is_empty());
    let said = |now| next(&statements, owner_of(0), &none, RULES, now);
    assert_eq!(said(1000 + TOMBSTONE_SECONDS)[&3], deleted);
    assert!(!said(1001 + TOMBSTONE_SECONDS).contains_key(&3));
}

#[test]
fn an_owner_makes_a_deleted_partition_anew() {
    let deleted = record(1, RecordState::Deleted, 1000);
    let statements = [
        live_store("zone-a-3", 3, 990),
        saying(live_store("zone-a-0", 0, 1), 3, deleted),
    ];
    // Its clock is behind.
    let said = next(&statements, owner_of(3), &BTreeMap::new(), RULES, 995);
    assert_eq!(said[&3], record(1001, RecordState::Pending, 1001));
    let all = [
        saying(statements[0].clone(), 3, said[&3]),
        statements[1].clone(),
    ];
    assert_eq!(View::of(&all).records[&3].state, RecordState::Pending);
}

#[test]
fn who_joins_or_is_dead_is_not_asked() {
    let mut joining = live_store("zone-a-0", 0, 1);
    joining.owner.as_mut().unwrap().state = OwnerState::Joining;
    let mut leaving = live_store("zone-b-0", 0, 1);
    leaving.owner.as_mut().unwrap().state = OwnerState::Leaving;
    let dead = Statement {
        alive: false,
        ..live_store("zone-c-0", 0, 1)
    };
    let record = record(1, RecordState::Active, 2);
    let ring = View::of(&[saying(joining, 0, record), leaving, dead]).ring();
    let healthy: Vec<(&str, bool)> = ring.partitions[&0]
        .owners
        .iter()
        .map(|owner| (owner.instance_id.as_str(), owner.healthy))
        .collect();
    assert_eq!(
        healthy,
        [("zone-a-0", false), ("zone-b-0", true), ("zone-c-0", false)]
    );
    assert!(ring.partitions[&0].is_readable());
}
