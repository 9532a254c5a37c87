//! Rust's text as tokens, as far as these checks need it.

/// Names, `::` and single signs; comments, characters and strings are left out.
pub(crate) fn tokens(source: &str) -> Vec<String> {
    let text: Vec<char> = source.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(&sign) = text.get(at) {
        let next = text.get(at + 1).copied();
        match sign {
            '/' if next == Some('/') => {
                while text.get(at).is_some_and(|sign| *sign != '\n') {
                    at += 1;
                }
            }
            '/' if next == Some('*') => at = behind_comment(&text, at),
            '"' => at = behind_string(&text, at),
            '\'' => at = behind_character(&text, at),
            _ if is_name(sign) => {
                let end = (at..text.len()).find(|at| !is_name(text[*at]));
                let end = end.unwrap_or(text.len());
                let name: String = text[at..end].iter().collect();
                at = end;
                match (name.as_str(), text.get(at)) {
                    ("r" | "br" | "cr", Some('"' | '#')) if is_raw(&text, at) => {
                        at = behind_raw(&text, at);
                    }
                    // Their quotes are met next.
                    ("b" | "c", Some('"' | '\'')) => {}
                    _ => tokens.push(name),
                }
            }
            ':' if next == Some(':') => {
                tokens.push("::".to_owned());
                at += 2;
            }
            _ => {
                if !sign.is_whitespace() {
                    tokens.push(sign.to_string());
                }
                at += 1;
            }
        }
    }
    tokens
}

fn is_name(sign: char) -> bool {
    sign.is_alphanumeric() || sign == '_'
}

fn behind_comment(text: &[char], mut at: usize) -> usize {
    let mut depth = 0;
    while at < text.len() {
        match (text[at], text.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn behind_string(text: &[char], mut at: usize) -> usize {
    at += 1;
    while at < text.len() && text[at] != '"' {
        at += if text[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

/// Behind `'x'` or `'\n'`; behind the quote alone where a lifetime or a label follows it.
fn behind_character(text: &[char], at: usize) -> usize {
    match (text.get(at + 1), text.get(at + 2)) {
        (Some('\\'), _) => {
            let end = (at + 3..text.len()).find(|at| text[*at] == '\'');
            end.map_or(text.len(), |end| end + 1)
        }
        (Some(_), Some('\'')) => at + 3,
        _ => at + 1,
    }
}

/// Whether a raw string begins here, and not a raw name (`r#type`).
fn is_raw(text: &[char], at: usize) -> bool {
    let behind = text[at..].iter().find(|sign| **sign != '#');
    behind == Some(&'"')
}

fn behind_raw(text: &[char], at: usize) -> usize {
    let marks = text[at..].iter().take_while(|sign| **sign == '#').count();
    let first = at + marks + 1;
    let ends = |at: &usize| {
        text[*at] == '"' && text[at + 1..].iter().take_while(|s| **s == '#').count() >= marks
    };
    let end = (first..text.len()).find(ends);
    end.map_or(text.len(), |end| end + 1 + marks)
}

#[test]
fn what_is_no_code_is_left_out() {
    let source = r###"
        // a
        /* b /* c */ d */ fn f<'a>(x: &'a str) -> char { 'l: loop { break 'l } ; '"'; '\''; b'y' }
        const S: &str = "q \" r"; const R: &str = r#"s " t"#; const B: &[u8] = br"u"; crate::v::w!(r#type)
    "###;
    let joined = tokens(source).join(" ");
    assert_eq!(
        joined,
        "fn f < a > ( x : & a str ) - > char { l : loop { break l } ; ; ; } \
         const S : & str = ; const R : & str = ; const B : & [ u8 ] = ; crate :: v :: w ! ( r # type )"
    );
}
