//! pg_upgrade: from a cluster of one major version to one of another.

use std::fs;

use anyhow::{Context, Result};

use crate::cluster::Cluster;
use crate::extension::SUPERUSER;
use crate::program;

impl Cluster {
    /// Brings what the cluster `old` holds into this new one, by copying. Neither runs.
    ///
    /// # Errors
    /// When pg_upgrade fails; the error shows what it said, and what stands in its logs.
    pub fn upgrade_from(&self, old: &Self) -> Result<()> {
        let mut upgrade = self.server().command("pg_upgrade")?;
        upgrade.arg("-b").arg(old.server().bin()).arg("-B").arg(self.server().bin());
        upgrade.arg("-d").arg(old.file("data")).arg("-D").arg(self.file("data"));
        upgrade.arg("-s").arg(self.folder()).args(["-U", SUPERUSER, "--retain"]);
        // It leaves scripts where it is started.
        upgrade.current_dir(self.folder());
        program::output(&mut upgrade).map(drop).with_context(|| self.complaints())
    }

    /// What was an error in the logs that pg_upgrade kept.
    fn complaints(&self) -> String {
        let runs = fs::read_dir(self.file("data/pg_upgrade_output.d")).into_iter().flatten().flatten();
        let logs = runs.flat_map(|run| fs::read_dir(run.path().join("log")).into_iter().flatten().flatten());
        let texts = logs.filter_map(|log| fs::read_to_string(log.path()).ok());
        let mut complaints = String::new();
        for text in texts {
            let is_news = |line: &&str| ["ERROR", "FATAL", "error:"].iter().any(|sign| line.contains(sign));
            for line in text.lines().filter(is_news) {
                complaints.push_str(line);
                complaints.push('\n');
            }
        }
        complaints
    }
}
