//! `[authorization]` and `[[accounts]]`: the users, what they may do, and the accounts that they belong to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use standin_daemon::settings::{
    MASK, Millis, Place, Places, Secret, SettingsError, mask_given, refused, without_value,
};
use standin_wire::permissions::{Permissions, RuleError, Rules};
use toml::{Table, Value};

use super::Cluster;
use crate::account::{self, AccountLimits};
use crate::auth::{Access, Password, Proof, User, is_hash};
use crate::permissions::{Answers, UserPermissions};

/// Default time limit of an answer, as in `nats-server`.
const ANSWER_MS: i64 = 120_000;

/// `[authorization]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authorization {
    pub user: String,
    pub password: Secret,
    pub token: Secret,
    pub users: Vec<UserEntry>,
    pub no_auth_user: String,
    pub system_account: String,
    pub default_permissions: PermissionTable,
    pub timeout_ms: Millis,
}

/// One user: an entry of `authorization.users`, or of `users` of an account.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UserEntry {
    /// The name that a client sends as `user` in CONNECT, or that its certificate has.
    pub user: String,
    /// The password that a client sends as `pass` in CONNECT, plain or as a bcrypt hash.
    pub password: Secret,
    /// The public key of a user that signs, instead of `user`.
    pub nkey: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permissions: Option<PermissionTable>,
}

/// The permissions of a user.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PermissionTable {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub publish: Option<SubjectLists>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscribe: Option<SubjectLists>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_responses: Option<AllowResponses>,
}

/// Allowed and denied subjects.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SubjectLists {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow: Option<Vec<String>>,
    pub deny: Vec<String>,
}

/// The answers that a user may send to a request. -1 means no limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AllowResponses {
    pub max: i64,
    pub expires_ms: i64,
}

impl Default for AllowResponses {
    fn default() -> Self {
        Self {
            max: 1,
            expires_ms: ANSWER_MS,
        }
    }
}

/// One entry of `accounts`. 0 means no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AccountEntry {
    pub name: String,
    pub users: Vec<UserEntry>,
    pub default_permissions: PermissionTable,
    pub max_connections: u32,
    pub max_subscriptions: u32,
    pub max_payload: u32,
    pub max_msgs_in_per_sec: u64,
    pub max_bytes_in_per_sec: u64,
    pub max_msgs_out_per_sec: u64,
    pub max_bytes_out_per_sec: u64,
    pub over_rate: OverRate,
}

/// What happens while an account exceeds a rate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OverRate {
    /// The next publish of each client waits.
    #[default]
    Wait,
    /// The next publishes of each client are refused with an `-ERR`.
    Refuse,
}

impl AccountEntry {
    pub(super) fn limits(&self) -> AccountLimits {
        AccountLimits {
            connections_max: self.max_connections.into(),
            subscriptions_max: self.max_subscriptions as usize,
            payload_bytes_max: self.max_payload as usize,
            per_second: [
                self.max_msgs_in_per_sec,
                self.max_bytes_in_per_sec,
                self.max_msgs_out_per_sec,
                self.max_bytes_out_per_sec,
            ],
            refuses: self.over_rate == OverRate::Refuse,
        }
    }
}

impl UserEntry {
    /// Returns the name of the user, or its key.
    fn name(&self) -> &str {
        if self.nkey.is_empty() {
            &self.user
        } else {
            &self.nkey
        }
    }

    fn proof(&self) -> Proof {
        if self.nkey.is_empty() {
            Proof::Password(Password::from(&self.password))
        } else {
            Proof::Signature
        }
    }
}

impl PermissionTable {
    /// Returns the permissions; `None` if everything is allowed.
    pub(super) fn permissions(&self) -> Result<Option<UserPermissions>, RuleError> {
        let lists = |lists: &Option<SubjectLists>| lists.clone().unwrap_or_default();
        let (mut publish, subscribe) = (lists(&self.publish), lists(&self.subscribe));
        // As in nats-server, a user that may answer requests may publish nothing else unless it is allowed.
        if self.allow_responses.is_some() && publish.allow.is_none() {
            publish.allow = Some(Vec::new());
        }
        let subjects = Permissions {
            publish: Rules::for_publish(publish.allow.as_deref(), &publish.deny)?,
            subscribe: Rules::for_subscribe(subscribe.allow.as_deref(), &subscribe.deny)?,
        };
        let answers = self.allow_responses.as_ref().map(|rule| Answers {
            max: u32::try_from(rule.max).ok(),
            expires: u64::try_from(rule.expires_ms).ok().map(Duration::from_millis),
        });
        let permissions = UserPermissions { subjects, answers };
        Ok((permissions != UserPermissions::default()).then_some(permissions))
    }
}

/// The users of the settings, each with its account and the permissions that apply to users without their own.
fn entries<'a>(
    authorization: &'a Authorization,
    accounts: &'a [AccountEntry],
) -> impl Iterator<Item = (&'a UserEntry, &'a str, &'a PermissionTable)> {
    let first = authorization.users.iter();
    let first = first.map(|user| (user, "", &authorization.default_permissions));
    first.chain(accounts.iter().flat_map(|account| {
        let users = account.users.iter();
        users.map(|user| (user, account.name.as_str(), &account.default_permissions))
    }))
}

impl Cluster {
    /// Returns the rules for the interest that is shared: `publish` for what is announced, `subscribe` for what is accepted.
    pub(crate) fn shared_interest(&self) -> Permissions {
        let permissions = self.permissions.permissions().ok().flatten();
        permissions.map_or_else(Permissions::default, |permissions| permissions.subjects)
    }
}

/// Returns the users that are admitted. The settings must have been checked: an entry that is not valid allows nothing.
pub(super) fn access(
    authorization: &Authorization,
    accounts: &[AccountEntry],
    by_certificate: bool,
) -> Access {
    let allowed = |table: &PermissionTable| {
        let permissions = table.permissions().unwrap_or_else(|_| {
            let nothing = Rules::for_publish::<&str>(Some(&[]), &[]).unwrap_or_default();
            Some(UserPermissions {
                subjects: Permissions {
                    publish: nothing.clone(),
                    subscribe: nothing,
                },
                answers: None,
            })
        });
        permissions.map(Arc::new)
    };
    let mut users = BTreeMap::new();
    let mut add = |name: &str, proof: Proof, account: &str, permissions: &PermissionTable| {
        let user = User {
            name: name.to_owned(),
            proof,
            account: account.to_owned(),
            permissions: allowed(permissions),
        };
        users.insert(name.to_owned(), Arc::new(user));
    };
    let Authorization {
        user,
        password,
        token,
        default_permissions,
        ..
    } = authorization;
    if !user.is_empty() {
        add(
            user,
            Proof::Password(Password::from(password)),
            "",
            default_permissions,
        );
    }
    if !token.is_empty() {
        add("", Proof::Token(Password::from(token)), "", default_permissions);
    }
    for (entry, account, default) in entries(authorization, accounts) {
        let permissions = entry.permissions.as_ref().unwrap_or(default);
        add(entry.name(), entry.proof(), account, permissions);
    }
    let no_auth_user = authorization.no_auth_user.clone();
    let is_system = |user: &Arc<User>| user.account == authorization.system_account;
    Access {
        admits_others: !users.is_empty() && users.values().all(is_system),
        users,
        no_auth_user: Some(no_auth_user).filter(|name| !name.is_empty()),
        by_certificate,
    }
}

/// Returns a warning for each user without a password or a key, because any client can log in as this user.
pub(super) fn warnings(
    authorization: &Authorization,
    accounts: &[AccountEntry],
    by_certificate: bool,
) -> Vec<String> {
    let mut open: Vec<&str> = entries(authorization, accounts)
        .filter(|(user, ..)| user.nkey.is_empty() && user.password.is_empty())
        .map(|(user, ..)| user.user.as_str())
        .collect();
    if !authorization.user.is_empty() && authorization.password.is_empty() {
        open.insert(0, &authorization.user);
    }
    open.retain(|_| !by_certificate);
    open.into_iter()
        .map(|user| format!("the user {user:?} has no password: any client that sends this name is admitted"))
        .collect()
}

/// Checks the rules that involve several users or accounts.
pub(super) fn check(
    authorization: &Authorization,
    accounts: &[AccountEntry],
    places: &Places<'_>,
) -> Result<(), SettingsError> {
    let Authorization {
        user,
        password,
        token,
        no_auth_user,
        ..
    } = authorization;
    let mut names: Vec<&str> = entries(authorization, accounts)
        .map(|(user, ..)| user.name())
        .collect();
    if !user.is_empty() {
        names.push(user);
    }
    let twice = duplicate(&names);
    let account_names: Vec<&str> = accounts.iter().map(|account| account.name.as_str()).collect();
    let account_twice = duplicate(&account_names);
    let rules = [
        (
            user.is_empty() && !password.is_empty(),
            "authorization.password",
            "authorization.password has no user; give authorization.user (--user) too".to_owned(),
        ),
        (
            !token.is_empty() && !names.is_empty(),
            "authorization.token",
            "authorization.token and users are both set; remove one".to_owned(),
        ),
        (
            twice.is_some(),
            "authorization.users",
            format!(
                "authorization.users, authorization.user and the users of accounts have {:?} twice; remove one",
                twice.unwrap_or_default()
            ),
        ),
        (
            account_twice.is_some(),
            "accounts",
            format!(
                "accounts has {:?} twice; remove one",
                account_twice.unwrap_or_default()
            ),
        ),
        (
            !no_auth_user.is_empty() && !names.contains(&no_auth_user.as_str()),
            "authorization.no_auth_user",
            format!(
                "authorization.no_auth_user is {no_auth_user:?}, which is not the name of a user; add the user"
            ),
        ),
    ];
    let broken = rules.into_iter().filter(|(broken, ..)| *broken);
    SettingsError::all(broken.map(|(_, key, rule)| places.conflict(key, rule)))
}

fn duplicate<'a>(names: &[&'a str]) -> Option<&'a str> {
    let mut sorted = names.to_vec();
    sorted.sort_unstable();
    sorted
        .windows(2)
        .find(|pair| pair[0] == pair[1])
        .map(|pair| pair[0])
}

/// Checks a table of permissions, or an entry of `authorization.users` or `accounts`.
pub(super) fn check_table(key: &str, place: &Place, table: &Table) -> Result<(), SettingsError> {
    match key {
        "authorization.users" => check_user(key, place, table),
        "authorization.default_permissions" | "cluster.permissions" => {
            check_permissions(key, place, &parsed::<PermissionTable>(key, place, table)?)
        }
        _ => check_account(place, table),
    }
}

fn check_user(key: &str, place: &Place, table: &Table) -> Result<(), SettingsError> {
    let password = format!("{key}.password");
    match table.get("password") {
        Some(Value::String(text)) if text == MASK => return Err(mask_given(&password, place)),
        Some(Value::String(text)) => whole_hash(&password, place, text)?,
        None => {}
        // The value is masked even if it has the wrong type, because it may be a secret.
        Some(_) => return Err(refused(&password, place, "a string", MASK)),
    }
    let user: UserEntry = parsed(key, place, table)?;
    let rule = match (user.user.is_empty(), user.nkey.is_empty()) {
        (true, true) => "needs `user` or `nkey`",
        (false, false) => "has `user` and `nkey`; remove one",
        (true, false) if !user.password.is_empty() => "has `nkey` and `password`; remove the password",
        (true, false) if !is_user_key(&user.nkey) => {
            "has an `nkey` that is not the public key of a user: U and 55 more characters"
        }
        _ => {
            return user
                .permissions
                .map_or(Ok(()), |permissions| check_permissions(key, place, &permissions));
        }
    };
    Err(conflict(place, format!("an entry of {key} {rule}")))
}

fn check_account(place: &Place, table: &Table) -> Result<(), SettingsError> {
    if let Some(Value::Array(users)) = table.get("users") {
        let users = users.iter().filter_map(Value::as_table);
        SettingsError::all(users.filter_map(|user| check_user("accounts.users", place, user).err()))?;
    }
    let account: AccountEntry = parsed("accounts", place, table)?;
    let name = &account.name;
    if name == account::DEFAULT {
        let rule =
            format!("the account {name} is the one of all users without an account; give it another name");
        return Err(conflict(place, rule));
    }
    if !account::is_name(name) {
        let rule = format!(
            "an entry of accounts has the name {name:?}; a name has no spaces and no dots, and is not empty"
        );
        return Err(conflict(place, rule));
    }
    check_permissions(
        "accounts.default_permissions",
        place,
        &account.default_permissions,
    )
}

fn check_permissions(key: &str, place: &Place, table: &PermissionTable) -> Result<(), SettingsError> {
    let rules = table
        .permissions()
        .map_err(|error| conflict(place, format!("permissions in {key}: {error}")));
    rules.map(|_| ())
}

fn parsed<T: DeserializeOwned>(key: &str, place: &Place, table: &Table) -> Result<T, SettingsError> {
    let parsed = table.clone().try_into();
    parsed.map_err(|error: toml::de::Error| {
        conflict(place, format!("{key}: {}", without_value(error.message().trim())))
    })
}

fn conflict(place: &Place, rule: String) -> SettingsError {
    let place = place.clone();
    SettingsError::Conflict { place, rule }
}

/// Returns whether `text` is the public nkey of a user.
fn is_user_key(text: &str) -> bool {
    text.starts_with('U') && nkeys::KeyPair::from_public_key(text).is_ok()
}

/// Refuses a password that begins like a bcrypt hash and is none: no client could log in with it.
pub(super) fn whole_hash(key: &str, place: &Place, text: &str) -> Result<(), SettingsError> {
    if !is_hash(text) || text.parse::<bcrypt::HashParts>().is_ok() {
        return Ok(());
    }
    let rule = format!("{key} begins like a bcrypt hash, but is not a whole one; a hash has 60 characters");
    Err(conflict(place, rule))
}

/// Refuses a bcrypt hash as a password that this node sends to others.
pub(super) fn not_a_hash(key: &str, place: &Place, text: &str) -> Result<(), SettingsError> {
    if !is_hash(text) {
        return Ok(());
    }
    let rule = format!("{key} is a bcrypt hash, but nodes send it to each other; give the password itself");
    Err(conflict(place, rule))
}
