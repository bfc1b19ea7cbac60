//! Every class of bad configuration, with the text that people read.

mod support;

use std::path::Path;

use dr_config::Problems;
use support::fixture;

fn problems(name: &str) -> String {
    match fixture(name) {
        Err(problems) => problems.to_string(),
        // Runbooks are refused by themselves.
        Ok(loaded) => {
            let unusable = loaded.config.runbooks.unusable();
            assert!(!unusable.is_empty(), "something is refused");
            let all = unusable.iter().flat_map(|file| file.problems.0.clone());
            Problems(all.collect()).to_string()
        }
    }
}

#[test]
fn syntax() {
    insta::assert_snapshot!(problems("bad/syntax"), @r###"
    dr.yaml:4:10: error: this is not YAML: while parsing a flow mapping, did not find expected ',' or '}'
    runbooks/broken.yaml:3:10: error: this is not YAML: mapping values are not allowed in this context
    2 errors in the configuration
    "###);
}

#[test]
fn envelope() {
    insta::assert_snapshot!(problems("bad/envelope"), @r###"
    dr.yaml:1:10: error: version: found the number `2`
      expected: `1`, the only version of this format
    dr.yaml:2:1: error: unknown key `organisation`
      expected: `encryption`, `organization`, `regions`, `version` or `workloads`
      hint: did you mean `organization`?
    dr.yaml:5:23: error: regions.us-west-2.store: `gs://acme-dr` is no store that can be used
      expected: a path, or a location with the scheme `file` or `s3`
    dr.yaml:5:57: error: regions.us-west-2.daemon.listen: `localhost` is not an address that can be used here
      expected: an IP address and a port, such as `127.0.0.1:8421`
    dr.yaml:6:3: error: regions: duplicate key `us-west-2`
      hint: it already stands in line 5
    dr.yaml:7:3: error: regions: `EU` is not a name: 1 to 63 lower-case letters, digits and single hyphens, with a letter or digit at both ends
    dr.yaml:7:16: error: regions.EU.store: a `file://` location must be absolute
      expected: `file:///srv/dr/store`, or a path relative to the configuration
    dr.yaml:10:24: error: workloads.orders.objectives.rpo: `900` has no unit
      expected: a duration with its unit, such as `30s`, `15m` or `4h`
      hint: `900s` is seconds, `900m` minutes
    dr.yaml:10:34: error: workloads.orders.objectives.rto: `soon` is not a duration: expected number at 0
      expected: a duration with its unit, such as `30s`, `15m` or `4h`
    dr.yaml:11:5: error: workloads.orders: unknown key `max_los`
      expected: `approval`, `checks`, `detection`, `home`, `max_loss`, `notify`, `objectives`, `owner`, `readiness`, `recovery`, `resources`, `services`, `tier` or `traffic`
      hint: did you mean `max_loss`?
    dr.yaml:13:15: error: workloads.orders.recovery: found text
      expected: a list
    dr.yaml:14:25: error: workloads.orders.approval.quorum: found text
      expected: a whole number from 0 to 4294967295
    dr.yaml:19:43: error: workloads.orders.resources.database.regions.us-east-1.port: found the number `70000`
      expected: a whole number from 0 to 65535
    dr.yaml:20:82: error: workloads.orders.resources.database.regions.us-west-2.standby: `hot` is not known here
      expected: `warm` or `none`
    dr.yaml:24:31: error: workloads.orders.services.api.regions.us-east-1.start: found text
      expected: a program and its arguments, such as `[systemctl, start, ledger]`
      hint: no shell reads it: write each word as one element of the list
    dr.yaml:26:53: error: workloads.orders.traffic[0].optional: the first record cannot be optional
      hint: what checks are about, and when clients are led, is told by it: put another one first
    dr.yaml:27:53: error: workloads.orders.traffic[1].optional: found text
      expected: `true` or `false`
    dr.yaml:29:9: error: workloads.orders.checks[0]: a check is one thing
      expected: either `http`, `sql` or `command`
    dr.yaml:30:9: error: workloads.orders.checks[1]: a check is one thing
      expected: either `http`, `sql` or `command`
    dr.yaml:31:25: error: workloads.orders.checks[2].command.run: found text
      expected: a program and its arguments, such as `[systemctl, start, ledger]`
      hint: no shell reads it: write each word as one element of the list
    dr.yaml:31:52: error: workloads.orders.checks[2].command.timeout: nothing can be seen within no time
      expected: a duration above zero
    dr.yaml:32:25: error: workloads.orders.checks[3].command.run: the command is empty
      expected: a program and its arguments, such as `[systemctl, start, ledger]`
    dr.yaml:32:29: error: workloads.orders.checks[3].command: unknown key `in`
      expected: `on`, `run` or `timeout`
      hint: did you mean `on`?
    dr.yaml:33:38: error: workloads.orders.checks[4].command.run[1]: a reference cannot be used here
      hint: a plan is written down: let the program read its secrets by itself
    dr.yaml:33:64: error: workloads.orders.checks[4].command.timeout: `30` has no unit
      expected: a duration with its unit, such as `30s`, `15m` or `4h`
      hint: `30s` is seconds, `30m` minutes
    dr.yaml:34:25: error: workloads.orders.notify[0].webhook: found something that is not text
      expected: text, such as `${file:/etc/dr/password}`
      hint: put it in quotes, or better in a file
    dr.yaml:36:5: error: workloads.invoices: `home` is missing
    dr.yaml:36:5: error: workloads.invoices: `recovery` is missing
    dr.yaml:36:5: error: workloads.invoices: `resources` is missing
    dr.yaml:36:17: error: workloads.invoices.objectives: `rto` is missing
    dr.yaml:36:24: error: workloads.invoices.objectives.rpo: an objective of zero cannot be measured
      expected: a duration above zero
      hint: `sync` on a resource makes commits wait for the recovery region's store
    dr.yaml:37:12: error: workloads.invoices.owner: found the number `12`
      expected: text
      hint: put it in quotes
    32 errors in the configuration
    "###);
}

#[test]
fn approvals() {
    insta::assert_snapshot!(problems("bad/approvals"), @r###"
    dr.yaml:10:25: error: workloads.nobody.approval.quorum: 1 approvals are asked for, and 0 people may approve
      hint: name them in `approvers`; `dr approval keygen` makes the key of one
    dr.yaml:20:11: error: workloads.twice.approval.approvers[1]: `ada` stands here already, with that name, key or account
      hint: a person counts once, and signs with a key that nobody else has
    dr.yaml:21:11: error: workloads.twice.approval.approvers[2]: `eve` stands here already, with that name, key or account
      hint: a person counts once, and signs with a key that nobody else has
    dr.yaml:29:16: error: workloads.wrong.approval.expires: an approval cannot count for so long
      expected: a duration above zero, at most `7d`
    dr.yaml:30:27: error: workloads.wrong.approval.approvers[0].name: `Ada` is not a name: 1 to 63 lower-case letters, digits and single hyphens, with a letter or digit at both ends
      expected: the name of a person, such as `ada`
    dr.yaml:30:37: error: workloads.wrong.approval.approvers[0].key: `secret` is not the public key of an approver: `ed25519:` and 64 hexadecimal digits
      expected: what `dr approval keygen` printed, `ed25519:` and 64 hexadecimal digits
    6 errors in the configuration
    "###);
}

#[test]
fn references() {
    insta::assert_snapshot!(problems("bad/references"), @r###"
    dr.yaml:9:16: error: workloads.orders.recovery: `us-east-1` is the home
      expected: regions other than the home
    dr.yaml:9:27: error: workloads.orders.recovery[1]: there is no region `us-wset-2`
      expected: `us-east-1` or `us-west-2`
      hint: did you mean `us-west-2`?
    dr.yaml:9:49: error: workloads.orders.recovery: `us-west-2` stands here twice
    dr.yaml:12:15: error: workloads.orders.resources.database.kind: there is no kind of resource `postgers`
      expected: `postgres`
      hint: did you mean `postgres`?
    dr.yaml:15:11: error: workloads.orders.resources.database.regions: `us-west-2` is missing, a region of this workload
    dr.yaml:16:11: error: workloads.orders.resources.database.regions: there is no region `us-west-3`
      expected: `us-east-1` or `us-west-2`
      hint: did you mean `us-west-2`?
    dr.yaml:18:15: error: workloads.orders.traffic[0].kind: there is no kind of traffic `route-53`
      expected: `rfc2136`
    dr.yaml:19:18: error: workloads.orders.traffic[0].answers: `us-east-1` is missing, a region of this workload
    dr.yaml:26:26: error: workloads.orders.checks[0].sql.resource: there is no such resource in this workload
      expected: `database`
      hint: did you mean `database`?
    dr.yaml:27:43: error: workloads.orders.checks[1].command.on: there is no such service in this workload
      expected: `api`
      hint: did you mean `api`?
    dr.yaml:34:43: error: workloads.nothing-started.checks[0].command.on: this workload has no services
      hint: leave it out, and the command runs where `dr` does
    schedules/orders.yaml:4:15: error: jobs.wal.job: there is no job `ship-wall`
      expected: `boot-recovery-point`, `compact-wal`, `copy-recovery-points`, `expire-recovery-points`, `ship-wal`, `take-snapshot` or `verify-recovery-point`
      hint: did you mean `ship-wal`?
    schedules/orders.yaml:4:36: error: jobs.wal.resource: `orders/databse` names no resource
      expected: `orders/database`
      hint: did you mean `orders/database`?
    schedules/orders.yaml:4:56: error: jobs.wal.in: `everywhere` is not known here
      expected: `primary`, `recovery` or `all`
    schedules/orders.yaml:5:48: error: jobs.copy.resource: `order/database` names no workload
      expected: `orders/database`
      hint: did you mean `orders/database`?
    schedules/orders.yaml:5:85: error: jobs.copy.after: there is no schedule `snapshot` in this file
      expected: `wal` or `copy`
    16 errors in the configuration
    "###);
}

#[test]
fn schedules() {
    insta::assert_snapshot!(problems("bad/schedules"), @r###"
    schedules/orders.yaml:2:11: error: timezone: there is no time zone `Europe/Pariss`
      expected: a name of the IANA database, such as `UTC` or `Europe/Paris`
    schedules/orders.yaml:4:83: error: jobs.impossible.cron: `0 0 30 2 *`: no such date ever comes
      expected: minute, hour, day of month, month, day of week: `0 2 * * *`
    schedules/orders.yaml:5:83: error: jobs.six-fields.cron: `0 0 2 * * *`: a cron pattern has five fields, this one has 6
      expected: minute, hour, day of month, month, day of week: `0 2 * * *`
      hint: there is no field for seconds
    schedules/orders.yaml:6:81: error: jobs.nickname.cron: `@daily`: a cron pattern has five fields, this one has 1
      expected: minute, hour, day of month, month, day of week: `0 2 * * *`
      hint: `0 * * * *` is hourly, `0 0 * * *` daily
    schedules/orders.yaml:7:85: error: jobs.out-of-range.cron: `0 25 * * *`: number out of bounds
      expected: minute, hour, day of month, month, day of week: `0 2 * * *`
    schedules/orders.yaml:8:9: error: jobs.both: there are 2 triggers
      expected: exactly one of `cron`, `after` and `continuous`
    schedules/orders.yaml:9:12: error: jobs.neither: there are 0 triggers
      expected: exactly one of `cron`, `after` and `continuous`
    schedules/orders.yaml:10:84: error: jobs.not-continuous: found `false`
      expected: `true`
      hint: leave the key out
    schedules/orders.yaml:11:9: error: jobs.this: `this` waits for itself
      hint: one schedule of a chain needs `cron`
    schedules/orders.yaml:12:9: error: jobs.that: `that` waits for itself
      hint: one schedule of a chain needs `cron`
    schedules/orders.yaml:12:98: error: jobs.that.keep: this would keep nothing
      expected: `last`, `within`, `daily`, `weekly`, `monthly` or `yearly`
    schedules/orders.yaml:12:98: error: jobs.that: `copy-recovery-points` deletes nothing, and keeps all
      expected: `keep` only beside an expiry
    12 errors in the configuration
    "###);
}

#[test]
fn runbooks() {
    insta::assert_snapshot!(problems("bad/runbooks"), @r###"
    runbooks/failover.yaml:1:1: error: `summary` is missing
    runbooks/failover.yaml:2:7: error: name: `Failover` is not a name: 1 to 63 lower-case letters, digits and single hyphens, with a letter or digit at both ends
      expected: the name of a runbook, such as `failover-region`
    runbooks/failover.yaml:4:25: error: steps[0].uses: there is no step `asses-region`
      expected: `assess-region`, `await-approval`, `await-fence`, `check-data-loss`, `check-health`, `fence-primary`, `notify`, `open-epoch`, `promote-database`, `rearm-protection`, `record-evidence`, `restore-database`, `seal-wal`, `start-service`, `switch-traffic` or `verify-traffic`
      hint: did you mean `assess-region`?
    runbooks/failover.yaml:5:11: error: steps[1].id: `assess again` is not the id of a step
      expected: 1 to 63 lower-case letters, digits and hyphens
    runbooks/failover.yaml:5:54: error: steps[1].with: unknown key `depth`
      expected: nothing
    runbooks/failover.yaml:6:37: error: steps[2].if: there is no condition `tuesday`
      expected: `unplanned`
    runbooks/failover.yaml:6:53: error: steps[2].retry: `attempts` is missing
    runbooks/failover.yaml:6:61: error: steps[2].retry.wait: `5` has no unit
      expected: a duration with its unit, such as `30s`, `15m` or `4h`
      hint: `5s` is seconds, `5m` minutes
    runbooks/failover.yaml:6:75: error: steps[2].timeout: `30` has no unit
      expected: a duration with its unit, such as `30s`, `15m` or `4h`
      hint: `30s` is seconds, `30m` minutes
    runbooks/failover.yaml:6:89: error: steps[2].fallback: there is no step `pray`
      expected: `assess-region`, `await-approval`, `await-fence`, `check-data-loss`, `check-health`, `fence-primary`, `notify`, `open-epoch`, `promote-database`, `rearm-protection`, `record-evidence`, `restore-database`, `seal-wal`, `start-service`, `switch-traffic` or `verify-traffic`
    runbooks/failover.yaml:6:95: error: steps[2]: unknown key `when`
      expected: `continue_on_error`, `fallback`, `id`, `if`, `needs`, `retry`, `timeout`, `uses` or `with`
    11 errors in the configuration
    "###);
}

#[test]
fn overlap() {
    insta::assert_snapshot!(problems("bad/overlap"), @r###"
    dr.yaml:14:11: error: workloads.orders.resources.database: `invoices/database` is the same instance in `us-east-1`
      hint: a server moves as a whole, with all databases in it: make one resource of both, in one workload
    dr.yaml:15:11: error: workloads.orders.resources.database: `invoices/database` is the same instance in `us-west-2`
      hint: a server moves as a whole, with all databases in it: make one resource of both, in one workload
    2 errors in the configuration
    "###);
}

#[test]
fn order() {
    insta::assert_snapshot!(problems("bad/order"), @r###"
    runbooks/circle.yaml:5:5: error: steps[0]: `one` needs itself
      hint: follow its `needs`: they lead back to it
    runbooks/circle.yaml:6:5: error: steps[1]: `two` needs itself
      hint: follow its `needs`: they lead back to it
    runbooks/dangling.yaml:6:11: error: steps[1].id: there is a step `assess` already
      hint: it stands in line 5
    runbooks/dangling.yaml:7:41: error: steps[2].needs: there is no step `asses`
      hint: did you mean `assess`?
    runbooks/promote-beside.yaml:8:26: error: steps[3]: `promote-database` must come after a `fence-primary` that cannot be skipped
      hint: take `if` and `continue_on_error` from the step that uses `fence-primary`
    runbooks/promote-first.yaml:7:26: error: steps[2]: `promote-database` must come after `seal-wal`
      hint: make it need `seal`, directly or through others
    runbooks/promote-first.yaml:7:70: error: steps[2]: `restore-database` must come after `seal-wal`
      hint: make it need `seal`, directly or through others
    runbooks/same-name.yaml:2:7: error: there is a runbook `circle` already
    8 errors in the configuration
    "###);
}

#[test]
fn secrets() {
    insta::assert_snapshot!(problems("bad/secrets"), @r###"
    dr.yaml:2:15: error: organization: `${env:UNSET}` cannot be resolved
    dr.yaml:4:23: error: regions.us-east-1.store: `${file:/nowhere}` cannot be resolved
    dr.yaml:5:23: error: regions.us-west-2.store: `${env:SECRET}://x` is no store that can be used
      expected: a path, or a location with the scheme `file` or `s3`
    dr.yaml:5:63: error: regions.us-west-2.daemon.listen: the value that `${env:SECRET}` stands for cannot be used
      expected: an IP address and a port, such as `127.0.0.1:8421`
    dr.yaml:8:24: error: workloads.orders.objectives.rpo: the value that `${env:SECRET}` stands for cannot be used
      expected: a duration with its unit, such as `30s`, `15m` or `4h`
    dr.yaml:9:11: error: workloads.orders.home: there is no region `${env:SECRET}`
      expected: `us-east-1` or `us-west-2`
    dr.yaml:11:25: error: workloads.orders.approval.quorum: the value that `${env:SECRET}` stands for cannot be used
      expected: a whole number from 0 to 4294967295
    dr.yaml:12:5: error: workloads.orders: unknown key `pasword`
      expected: `approval`, `checks`, `detection`, `home`, `max_loss`, `notify`, `objectives`, `owner`, `readiness`, `recovery`, `resources`, `services`, `tier` or `traffic`
    dr.yaml:15:15: error: workloads.orders.resources.database.kind: there is no kind of resource `${env:SECRET}`
      expected: `postgres`
    dr.yaml:17:42: error: workloads.orders.resources.other.password: found a list
      expected: text, such as `${file:/etc/dr/password}`
    dr.yaml:17:62: error: workloads.orders.resources.other.regions: found text
      expected: a map
    dr.yaml:18:14: error: workloads.orders.checks[0]: found text
      expected: a map
    dr.yaml:19:25: error: workloads.orders.notify[0].webhook: found a map
      expected: text, such as `${file:/etc/dr/password}`
    schedules/orders.yaml:1:10: error: version: found text
      expected: `1`, the only version of this format
    schedules/orders.yaml:2:11: error: timezone: there is no time zone `${env:SECRET}`
      expected: a name of the IANA database, such as `UTC` or `Europe/Paris`
    schedules/orders.yaml:4:15: error: jobs.wal.job: there is no job `${env:SECRET}`
      expected: `boot-recovery-point`, `compact-wal`, `copy-recovery-points`, `expire-recovery-points`, `ship-wal`, `take-snapshot` or `verify-recovery-point`
    schedules/orders.yaml:4:42: error: jobs.wal.resource: `${env:SECRET}/database` names no workload
      expected: `orders/database` or `orders/other`
      hint: did you mean `orders/database`?
    schedules/orders.yaml:4:72: error: jobs.wal.in: `${env:SECRET}` is not known here
      expected: `primary`, `recovery` or `all`
    schedules/orders.yaml:4:95: error: jobs.wal.cron: the value that `${env:SECRET}` stands for cannot be used
      expected: minute, hour, day of month, month, day of week: `0 2 * * *`
      hint: `0 * * * *` is hourly, `0 0 * * *` daily
    schedules/orders.yaml:5:66: error: jobs.field.cron: the value that `* * * * ${env:SECRET}` stands for cannot be used
      expected: minute, hour, day of month, month, day of week: `0 2 * * *`
    20 errors in the configuration
    "###);
}

#[test]
fn no_configuration() {
    let shown = support::load_at(Path::new("/nowhere/at-all"))
        .unwrap_err()
        .to_string();
    insta::assert_snapshot!(shown, @r###"
    error: there is no configuration at `/nowhere/at-all`
      expected: a directory that holds `dr.yaml`
      hint: `dr init` writes one; `--config` says where it is
    1 error in the configuration
    "###);
}

#[test]
fn not_a_configuration() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("other.yaml"), "version: 1").unwrap();
    let expected = "there is no configuration at";
    for path in [
        directory.path().to_owned(),
        directory.path().join("other.yaml"),
    ] {
        let problems = support::load_at(&path).unwrap_err();
        assert!(problems.to_string().contains(expected), "{problems}");
    }
}

#[test]
fn stores() {
    insta::assert_snapshot!(problems("bad/stores"), @r###"
    dr.yaml:3:35: error: regions.a.store: unknown key `regin`
      expected: `region`, `secret` or `url`
      hint: did you mean `region`?
    dr.yaml:4:15: error: regions.b.store: `url` is missing
      expected: where the store is, such as `s3://acme-dr-use1`
    dr.yaml:5:22: error: regions.c.store: a directory takes no settings
      hint: write the path as `store` itself
    dr.yaml:6:22: error: regions.d.store: `gs://acme` is no store that can be used
      expected: a path, or a location with the scheme `file` or `s3`
    dr.yaml:7:22: error: regions.e.store: found the number `5`
      expected: text
      hint: put it in quotes
    5 errors in the configuration
    "###);
}

#[test]
fn files_that_cannot_be_read() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(directory.path().join("schedules/folder.yaml")).unwrap();
    std::fs::write(
        directory.path().join("schedules/large.yaml"),
        vec![b'#'; (1 << 20) + 1],
    )
    .unwrap();
    std::fs::write(directory.path().join("schedules/latin1.yaml"), b"a: \xe9").unwrap();
    std::fs::write(directory.path().join("dr.yaml"), "").unwrap();
    let shown = support::load_at(directory.path()).unwrap_err().to_string();
    insta::assert_snapshot!(shown, @r###"
    error: `schedules/folder.yaml` cannot be read: Is a directory (os error 21)
      hint: it has to be a file
    error: `schedules/large.yaml` cannot be read: it is larger than 1048576 bytes
      hint: is that the right file?
    error: `schedules/latin1.yaml` cannot be read: stream did not contain valid UTF-8
      hint: it has to be text in UTF-8
    dr.yaml:1:1: error: found nothing
      expected: a map
    4 errors in the configuration
    "###);
}

#[test]
fn secrets_are_never_shown() {
    assert!(!problems("bad/secrets").contains("hunter2"));
    assert!(!format!("{:?}", fixture("bad/secrets")).contains("hunter2"));
}
