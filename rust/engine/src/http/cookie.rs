//! What a request's `Cookie` fields say.

use super::Fields;

/// The value of the first cookie called `name` (RFC 6265 §4.2.1; names are compared with case, quotes stay).
pub fn cookie<'f>(fields: &'f Fields, name: &str) -> Option<&'f [u8]> {
    let pairs = fields.all("cookie").flat_map(|value| value.split(|byte| *byte == b';')).map(<[u8]>::trim_ascii);
    pairs.filter_map(|pair| pair.strip_prefix(name.as_bytes())).find_map(|rest| rest.strip_prefix(b"="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_the_name() {
        let mut fields = Fields::new();
        fields.push(b"Cookie", b"sid2=no; SID=no;  sid=a=b ;sid=second; empty=; flag");
        fields.push(b"cookie", b"late=1");
        assert_eq!(cookie(&fields, "sid"), Some(&b"a=b"[..]));
        assert_eq!(cookie(&fields, "empty"), Some(&b""[..]));
        assert_eq!(cookie(&fields, "late"), Some(&b"1"[..]));
        assert_eq!((cookie(&fields, "flag"), cookie(&fields, "si")), (None, None));
    }
}
