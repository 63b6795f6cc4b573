//! The model of a bank, from the settings that the program wrote into it.

use super::Bank;
use crate::error::Error;
use dt::config::{Action, Config, Observation, Time};

impl Bank {
    /// The model that its weights belong to. Dropout, which no decision has, is left at its default.
    ///
    /// # Errors
    /// [`Error::Bank`] naming a setting that is missing or means nothing; [`Error::Data`] for sizes no model has.
    pub fn model(&self) -> Result<Config, Error> {
        let discrete = self.choice("action", "discrete", "continuous")?;
        let outputs = self.number("action_width")?;
        let learned = self.choice("time", "learned", "sinusoidal")?;
        let action = if discrete { Action::Discrete(outputs) } else { Action::Continuous(outputs) };
        let config = Config {
            width: self.number("width")?,
            layers: self.number("layers")?,
            heads: self.number("heads")?,
            context: self.number("context")?,
            max_ep_len: self.number("max_ep_len")?,
            time: if learned { Time::Learned } else { Time::Sinusoidal },
            // The program always writes it; a bank made by hand has embeddings like any other weight.
            include_embeddings: self.config.get("include_embeddings").is_none_or(|text| text != "false"),
            ..Config::new(self.observation()?, action)
        };
        config.validate()?;
        Ok(config)
    }

    fn observation(&self) -> Result<Observation, Error> {
        let text = self.setting("observation")?;
        let sizes: Option<Vec<u32>> =
            text.trim_matches(['[', ']']).split(',').map(|size| size.trim().parse().ok()).collect();
        match sizes.as_deref() {
            Some([n]) => Ok(Observation::Vector(*n)),
            Some([channels, height, width]) => {
                Ok(Observation::Image { channels: *channels, height: *height, width: *width })
            }
            _ => Err(Error::bank("config \"observation\"", "one size or three in brackets", text)),
        }
    }

    /// True for the first of two words; the program writes words in quotes.
    fn choice(&self, key: &str, yes: &str, no: &str) -> Result<bool, Error> {
        match self.setting(key)?.trim_matches('"') {
            word if word == yes => Ok(true),
            word if word == no => Ok(false),
            other => Err(Error::bank(format!("config {key:?}"), format!("{yes} or {no}"), other)),
        }
    }

    fn number(&self, key: &str) -> Result<u32, Error> {
        let text = self.setting(key)?;
        text.parse().map_err(|_| Error::bank(format!("config {key:?}"), "a whole number", text))
    }

    fn setting(&self, key: &str) -> Result<&str, Error> {
        let missing = || Error::bank(format!("config {key:?}"), "a setting", "nothing");
        self.config.get(key).map(String::as_str).ok_or_else(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bank(changes: &[(&str, &str)]) -> Bank {
        let usual = [
            ("observation", "[4]"),
            ("action", "\"discrete\""),
            ("action_width", "2"),
            ("width", "32"),
            ("layers", "2"),
            ("heads", "4"),
            ("context", "8"),
            ("max_ep_len", "501"),
            ("time", "\"sinusoidal\""),
        ];
        let own = |(key, value): &(&str, &str)| (key.to_string(), value.to_string());
        Bank { config: usual.iter().chain(changes).map(own).collect(), ..Bank::default() }
    }

    #[test]
    fn settings_become_the_model() {
        let expected = Config {
            width: 32,
            layers: 2,
            context: 8,
            max_ep_len: 501,
            ..Config::new(Observation::Vector(4), Action::Discrete(2))
        };
        assert_eq!(bank(&[]).model().unwrap(), expected);
        let frames = bank(&[("observation", "[4,84,84]"), ("action", "\"continuous\""), ("time", "\"learned\"")]);
        let model = frames.model().unwrap();
        assert_eq!(model.observation, Observation::Image { channels: 4, height: 84, width: 84 });
        assert_eq!((model.action, model.time), (Action::Continuous(2), Time::Learned));
    }

    #[test]
    fn what_means_nothing_is_named() {
        for (key, value) in [("observation", "[4,4]"), ("action", "\"none\""), ("width", "-1"), ("heads", "3")] {
            let text = bank(&[(key, value)]).model().unwrap_err().to_string();
            assert!(text.contains(key), "{text}");
        }
        let text = Bank::default().model().unwrap_err().to_string();
        assert!(text.contains("\"action\""), "{text}");
    }
}
