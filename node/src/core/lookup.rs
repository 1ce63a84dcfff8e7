//! What a program means by a name or the first digits of an id.
//!
//! The law: what fits several is an error that lists them, never a guess.

use kith_crdt::id::{ConversationId, EntryId, UserId};

use super::{
    channels,
    history::ConvNo,
    people,
    rows::{ContactNo, ContactRow},
    siblings,
    views::{View, is_prefix, unknown_message},
};
use crate::{
    api::error::{ApiError, Candidate, ErrorCode},
    limits,
};

impl View<'_> {
    /// A contact by name or id prefix.
    pub(crate) fn contact(&self, given: &str) -> Result<(ContactNo, ContactRow), ApiError> {
        if let Ok(user) = given.parse::<UserId>()
            && let Some(found) = people::find_contact(self.kv, &user)?
        {
            return Ok(found);
        }
        let all = people::contacts(self.kv)?;
        let named = |row: &ContactRow| row.name().to_lowercase() == given.trim().to_lowercase();
        let mut found: Vec<_> = all.iter().filter(|(_, row)| named(row)).cloned().collect();
        if found.is_empty() && is_prefix(given) {
            let fits = |row: &ContactRow| row.user.to_string().starts_with(given);
            found = all.into_iter().filter(|(_, row)| fits(row)).collect();
        }
        match found.len() {
            1 => Ok(found.remove(0)),
            0 => {
                Err(ApiError::new(ErrorCode::UnknownContact, format_args!("no contact {given:?}"))
                    .hint(
                        "`kith contacts` lists them; names and the first digits of an id both work",
                    ))
            }
            _ => Err(ApiError::ambiguous(
                given,
                found
                    .iter()
                    .map(|(_, row)| Candidate {
                        id: row.user.to_string(),
                        name: row.name().to_owned(),
                    })
                    .collect(),
            )),
        }
    }

    /// A chat by name or id prefix.
    pub(crate) fn chat(&self, given: &str) -> Result<ConvNo, ApiError> {
        if let Ok(id) = given.parse::<ConversationId>()
            && let Some(number) = self.history().conversation(&id)?
            && channels::row(self.kv, number)?.is_some()
        {
            return Ok(number);
        }
        if let Some(note) = siblings::is_note(self, given)? {
            return Ok(note);
        }
        let contact = match self.contact(given) {
            Ok((_, row)) => Some(row),
            Err(error) if error.code == ErrorCode::UnknownContact => None,
            Err(error) => return Err(error),
        };
        let mut found = self.groups_named(given)?;
        if let Some(row) = contact {
            // A contact may call itself like a group: that decides nothing.
            let number = self.history().conversation(&row.conversation)?.ok_or_else(|| {
                ApiError::new(ErrorCode::UnknownChat, format_args!("no chat with {given:?} yet"))
            })?;
            found.push((number, row.conversation));
        }
        if found.is_empty() && is_prefix(given) {
            found = self.chats_from(given)?;
        }
        match found.as_slice() {
            [(number, _)] => Ok(*number),
            [] => Err(ApiError::new(ErrorCode::UnknownChat, format_args!("no chat {given:?}"))
                .hint("`kith chats` lists them; names and the first digits of an id both work")),
            several => {
                let mut candidates = Vec::new();
                for (number, id) in several {
                    let name = match channels::row(self.kv, *number)? {
                        Some(row) => self.chat_row(*number, &row)?.name,
                        None => given.to_owned(),
                    };
                    candidates.push(Candidate { id: id.to_string(), name });
                }
                Err(ApiError::ambiguous(given, candidates))
            }
        }
    }

    fn groups_named(&self, given: &str) -> Result<Vec<(ConvNo, ConversationId)>, ApiError> {
        let wanted = given.trim().to_lowercase();
        let mut found = Vec::new();
        for (number, row) in channels::all(self.kv)? {
            let group = channels::group(self.kv, number)?;
            if group.is_some_and(|group| group.name.to_lowercase() == wanted) {
                found.push((number, row.conversation));
            }
        }
        Ok(found)
    }

    /// Chats by a prefix of their ids.
    fn chats_from(&self, given: &str) -> Result<Vec<(ConvNo, ConversationId)>, ApiError> {
        let all = channels::all(self.kv)?.into_iter().map(|(no, row)| (no, row.conversation));
        Ok(all.filter(|(_, id)| id.to_string().starts_with(given)).collect())
    }

    /// A message by id or unique prefix of it.
    pub(crate) fn entry(&self, given: &str) -> Result<(ConvNo, EntryId), ApiError> {
        let given = given.trim();
        if let Ok(id) = given.parse::<EntryId>() {
            let place = self.history().place(&id)?.ok_or_else(|| unknown_message(given))?;
            return Ok((place.0, id));
        }
        let found =
            if is_prefix(given) { self.history().find_by_prefix(given)? } else { Vec::new() };
        match found.as_slice() {
            [id] => {
                let place = self.history().place(id)?.ok_or_else(|| unknown_message(given))?;
                Ok((place.0, *id))
            }
            [] => Err(unknown_message(given)),
            several => {
                let mut candidates = Vec::new();
                for id in several.iter().take(limits::CANDIDATES_MAX) {
                    let name = match self.history().place(id)? {
                        Some((conversation, _)) => self
                            .message(conversation, id)?
                            .and_then(|message| message.text)
                            .map(|text| text.chars().take(24).collect())
                            .unwrap_or_default(),
                        None => String::new(),
                    };
                    candidates.push(Candidate { id: id.to_string(), name });
                }
                Err(ApiError::ambiguous(given, candidates))
            }
        }
    }

    /// The name we show of a user.
    pub(super) fn user_name(&self, user: &UserId) -> Result<String, ApiError> {
        if *user == self.me.user {
            return Ok(self.me.name.clone());
        }
        if let Some((_, contact)) = people::find_contact(self.kv, user)? {
            return Ok(contact.name().to_owned());
        }
        Ok(people::own_name(self.kv, user)?.unwrap_or_else(|| user.short()))
    }
}
