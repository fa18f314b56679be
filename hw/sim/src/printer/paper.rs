//! What came out of a printer.

/// A piece of paper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paper {
    /// Its lines, blanks at their ends removed.
    pub lines: Vec<String>,
    /// Whether it was printed to its cut; else it is torn.
    pub whole: bool,
}

impl Paper {
    /// The number of the payment that it answers, if it came so far.
    #[must_use]
    pub fn payment(&self) -> Option<u64> {
        self.value("PAYMENT ")?.parse().ok()
    }

    /// The receipt's own number, if it came so far.
    #[must_use]
    pub fn receipt(&self) -> Option<u64> {
        self.value("RECEIPT ")?.parse().ok()
    }

    /// Whether it says that the payment was accepted, or rejected.
    #[must_use]
    pub fn accepted(&self) -> Option<bool> {
        self.lines.iter().find_map(|line| match line.trim() {
            "ACCEPTED" => Some(true),
            "REJECTED" => Some(false),
            _ => None,
        })
    }

    /// Whether it says that it may not be the only one.
    #[must_use]
    pub fn again(&self) -> bool {
        self.lines.iter().any(|line| line.trim() == "PRINTED AGAIN")
    }

    /// What stands at the right end of the line with this label.
    #[must_use]
    pub fn value(&self, label: &str) -> Option<&str> {
        self.lines
            .iter()
            .find_map(|line| line.strip_prefix(label))
            .map(str::trim)
    }

    /// As a text.
    #[must_use]
    pub fn text(&self) -> String {
        self.lines.join("\n")
    }
}
