//! A person comes for the first time, and again.

use anyhow::Result;

use super::{cluster, login};

#[test]
fn first_login_makes_the_role() -> Result<()> {
    let cluster = cluster()?;
    let seen = login(cluster, "alice", &["writer", "analyst"]).run("SELECT session_user, current_user")?;
    assert!(seen.ok(), "{seen:?} {}", cluster.log());
    assert_eq!(seen.rows(), [["alice", "analyst"]]);
    Ok(())
}
