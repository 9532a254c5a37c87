//! Words in lines.

/// Words in lines of this width, or of a longer word's; all but the first are indented by so many blanks.
pub(super) fn wrapped(words: &str, width: usize, indent: usize) -> String {
    let mut text = String::new();
    let mut column = 0;
    let mut begins = true;
    for word in words.split_whitespace() {
        let length = word.chars().count();
        if !begins && column + 1 + length > width {
            text.push('\n');
            text.extend(std::iter::repeat_n(' ', indent));
            column = indent;
            begins = true;
        }
        if !begins {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += length;
        begins = false;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::wrapped;

    #[test]
    fn lines_hold_as_much_as_fits_and_words_stay_whole() {
        assert_eq!(wrapped("a bb  ccc d", 4, 0), "a bb\nccc\nd");
        assert_eq!(wrapped("a bb ccc d", 6, 2), "a bb\n  ccc\n  d");
        assert_eq!(wrapped("longer a", 3, 1), "longer\n a");
        assert_eq!(wrapped("", 3, 1), "");
    }
}
