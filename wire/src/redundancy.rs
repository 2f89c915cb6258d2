//! How much of a flow goes twice.

/// How much of a flow is sent more than once, as its owner wishes. Copies are dropped where the flow ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Redundancy {
    /// Nothing. What a hop loses is still sent again when it is asked for.
    Off,
    /// Where a link on the way has a problem: it falls silent, or loses so much that asking comes too late.
    #[default]
    Adaptive,
    /// As adaptive, and all of it over a second path besides.
    Always,
}

impl Redundancy {
    /// Every mode, the least first.
    pub const ALL: [Self; 3] = [Self::Off, Self::Adaptive, Self::Always];

    /// The number it travels as; 0 is what a version says that knows no modes.
    pub const fn code(self) -> u32 {
        match self {
            Self::Adaptive => 0,
            Self::Off => 1,
            Self::Always => 2,
        }
    }

    /// The mode that travels as `code`; one of a later version is taken for the default.
    pub const fn from_code(code: u32) -> Self {
        match code {
            1 => Self::Off,
            2 => Self::Always,
            _ => Self::Adaptive,
        }
    }

    /// Its name in configuration, output and metric labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Adaptive => "adaptive",
            Self::Always => "always",
        }
    }

    /// The mode of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_have_codes_and_names_of_their_own() {
        for mode in Redundancy::ALL {
            assert_eq!(Redundancy::from_code(mode.code()), mode);
            assert_eq!(Redundancy::from_name(mode.name()), Some(mode));
        }
        assert_eq!(Redundancy::from_code(0), Redundancy::default());
        assert_eq!(Redundancy::from_code(9), Redundancy::default());
        assert_eq!(Redundancy::from_name("Always"), None);
    }
}
