//! Who has a role of her own, and which memberships pg_oidc has granted: rows of `oidc.identity_role` and
//! `oidc.granted_membership`.

use std::collections::BTreeMap;

use rkyv::with::Skip;
use rkyv::{Archive, Deserialize, Serialize};

use crate::image::{ArchivedPolicyEntry, ArchivedPolicyImage, ImageError, PolicyImage};
use crate::limits;

/// A row of `oidc.identity_role`.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// Name of the provider; in the image a binding stands under it.
    #[rkyv(with = Skip)]
    pub provider: String,
    /// The claim `sub` of the identity.
    pub subject: String,
    /// The name of her role.
    pub role: String,
    /// The oid that the role had when the row was written; 0: there was none.
    pub role_oid: u32,
}

/// A row of `oidc.granted_membership`, by oid.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Granted {
    /// The role that is a member.
    pub member: u32,
    /// The role that it is a member of.
    pub role: u32,
}

/// What a login must know of all people, ready to be looked up.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, Default)]
pub(crate) struct People {
    /// The oids of people's own roles, sorted.
    oids: Vec<u32>,
    /// Their names as they are bound, sorted.
    names: Vec<String>,
    /// Sorted.
    granted: Vec<Granted>,
}

impl PolicyImage {
    /// Takes these people instead of those that it has. Bindings of a provider that is not in the policy let nobody in,
    /// but their roles are somebody's own all the same.
    ///
    /// # Errors
    /// [`ImageError`]: there are too many, or an identity is bound twice.
    pub fn set_people(
        &mut self,
        mut bindings: Vec<Binding>,
        mut granted: Vec<Granted>,
    ) -> Result<(), ImageError> {
        if bindings.len() > limits::BINDINGS || granted.len() > limits::GRANTED {
            return Err(ImageError::TooManyPeople);
        }
        let identity = |binding: &Binding| (binding.provider.clone(), binding.subject.clone());
        bindings.sort_by_cached_key(identity);
        for (one, next) in bindings.iter().zip(bindings.iter().skip(1)) {
            if identity(one) == identity(next) {
                return Err(ImageError::Repeated(next.subject.clone()));
            }
        }
        let mut people = People {
            oids: bindings.iter().map(|binding| binding.role_oid).filter(|oid| *oid != 0).collect(),
            names: bindings.iter().map(|binding| binding.role.clone()).collect(),
            granted: Vec::new(),
        };
        people.oids.sort_unstable();
        people.names.sort_unstable();
        granted.sort_unstable();
        people.granted = granted;
        self.people = people;
        let mut places = BTreeMap::new();
        for entry in &mut self.entries {
            entry.bindings.clear();
            places.insert(entry.provider.name.clone(), entry);
        }
        for binding in bindings {
            if let Some(entry) = places.get_mut(&binding.provider) {
                entry.bindings.push(binding);
            }
        }
        Ok(())
    }
}

impl PolicyImage {
    /// Whether anybody has, or may get, a role of her own.
    pub fn has_people(&self) -> bool {
        self.entries.iter().any(|entry| entry.provider.naming.is_some() || !entry.bindings.is_empty())
    }
}

impl ArchivedPolicyImage {
    /// Whether the role of this oid is somebody's own.
    pub fn is_personal(&self, role_oid: u32) -> bool {
        self.people.oids.binary_search_by_key(&role_oid, |oid| oid.to_native()).is_ok()
    }

    /// Whether a role of this name is, or is to be, somebody's own.
    pub(crate) fn is_personal_name(&self, role: &str) -> bool {
        self.people.names.binary_search_by(|name| name.as_str().cmp(role)).is_ok()
    }

    /// Whether the membership is one that pg_oidc has granted.
    pub fn has_granted(&self, membership: Granted) -> bool {
        let known = |granted: &ArchivedGranted| Granted {
            member: granted.member.to_native(),
            role: granted.role.to_native(),
        };
        self.people.granted.binary_search_by_key(&membership, known).is_ok()
    }
}

impl ArchivedPolicyEntry {
    /// The role that is bound to a subject of this provider.
    pub(crate) fn binding(&self, subject: &str) -> Option<&ArchivedBinding> {
        let place = self.bindings.binary_search_by(|binding| binding.subject.as_str().cmp(subject)).ok()?;
        self.bindings.get(place)
    }
}
