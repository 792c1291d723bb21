//! Reasons that are counted, each under a name.

/// Declares an enum of reasons, each with the name under which reports count it.
///
/// The enum is `Copy` and one byte long. It gets `ALL`, the reasons in the order of their
/// discriminants, so that `ALL[reason as usize] == reason` and an array of [`u64`] by reason is
/// `[u64; COUNT]`; `COUNT`; `name()`; and a [`Display`](std::fmt::Display) that shows the name.
///
/// ```
/// wire::reasons! {
///     /// Why a letter was not delivered.
///     pub enum Undelivered {
///         /// Nobody lives there.
///         Unknown = "unknown",
///         /// The box is full.
///         Full = "full",
///     }
/// }
/// let mut counters = [0; Undelivered::COUNT];
/// counters[Undelivered::Full as usize] += 1;
/// assert_eq!(Undelivered::ALL[1].name(), "full");
/// ```
#[macro_export]
macro_rules! reasons {
    ($(#[$meta:meta])* $vis:vis enum $name:ident {
        $($(#[$doc:meta])* $variant:ident = $text:literal,)*
    }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        $vis enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            /// How many reasons there are.
            pub const COUNT: usize = [$($text),*].len();

            /// All reasons, in the order of their discriminants.
            pub const ALL: [Self; Self::COUNT] = [$(Self::$variant,)*];

            /// The name under which reports count it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

#[cfg(test)]
mod tests {
    crate::reasons! {
        /// For the tests alone.
        enum Sample {
            /// The first.
            First = "first",
            /// The second.
            Second = "second",
        }
    }

    #[test]
    fn all_is_indexed_by_discriminant_and_names_are_as_declared() {
        assert_eq!(Sample::COUNT, 2);
        for (i, s) in Sample::ALL.into_iter().enumerate() {
            assert_eq!(s as usize, i);
        }
        assert_eq!(Sample::ALL.map(Sample::name), ["first", "second"]);
        assert_eq!(Sample::Second.to_string(), "second");
        assert_eq!(size_of::<Sample>(), 1);
    }
}
