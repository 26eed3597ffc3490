//! What permessage-deflate negotiates (RFC 7692 §7.1). Compressed messages pass through us as they are; only the offer
//! and the answer are read.
//!
//! The answer is held to what a relay must know: that the extension was offered, and that its parameters are known,
//! valid and said once. Whether an answer honours each wish of the offer (a smaller window, no context takeover) is
//! left to the client: widespread servers ignore such wishes, and clients that made them accept it.

use crate::http::fields::Fields;

const EXTENSIONS: &str = "Sec-WebSocket-Extensions";

/// The extension's registered name.
pub const NAME: &[u8] = b"permessage-deflate";

/// The parameters of one offer or answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    pub server_no_context_takeover: bool,
    pub client_no_context_takeover: bool,
    pub server_max_window_bits: Option<u8>,
    /// `Some(None)` in an offer without a value: any window will do.
    pub client_max_window_bits: Option<Option<u8>>,
}

/// Why an element of `Sec-WebSocket-Extensions` is no permessage-deflate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// It is another extension.
    Name,
    /// A parameter that is unknown, repeated, or has a value it may not have.
    Parameter,
}

impl Parameters {
    /// Reads one element of the field: the name and parameters divided by `;`.
    pub fn parse(element: &[u8]) -> Result<Self, Invalid> {
        let mut parts = element.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        if parts.next() != Some(NAME) {
            return Err(Invalid::Name);
        }
        let mut parameters = Self::default();
        parts.try_for_each(|part| parameters.take(part)).ok_or(Invalid::Parameter)?;
        Ok(parameters)
    }

    /// Takes one parameter; `None` when it is unknown, repeated or has a value it may not have.
    fn take(&mut self, part: &[u8]) -> Option<()> {
        let (name, value) = split_value(part);
        match name {
            b"server_no_context_takeover" => set_flag(&mut self.server_no_context_takeover, value),
            b"client_no_context_takeover" => set_flag(&mut self.client_no_context_takeover, value),
            b"server_max_window_bits" => set_once(&mut self.server_max_window_bits, window_bits(value?)?),
            b"client_max_window_bits" => {
                let bits = value.map_or(Some(None), |value| window_bits(value).map(Some))?;
                set_once(&mut self.client_max_window_bits, bits)
            }
            _ => None,
        }
    }
}

/// The permessage-deflate offers that go on to the upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offers {
    /// The field's value, as the client wrote it but for other extensions and invalid offers.
    pub value: Vec<u8>,
    /// Whether one of them allows the answer `client_max_window_bits`.
    pub client_max_window_bits: bool,
}

/// The valid offers among a client's extensions; `None` without one.
pub fn offers(fields: &Fields) -> Option<Offers> {
    let mut offers = Offers { value: Vec::new(), client_max_window_bits: false };
    for element in fields.elements(EXTENSIONS) {
        let Ok(parameters) = Parameters::parse(element) else { continue };
        offers.client_max_window_bits |= parameters.client_max_window_bits.is_some();
        if !offers.value.is_empty() {
            offers.value.extend_from_slice(b", ");
        }
        offers.value.extend_from_slice(element);
    }
    (!offers.value.is_empty()).then_some(offers)
}

/// What is wrong with a server's extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadAnswer {
    /// An extension that was not offered, or one said twice.
    NotOffered,
    Parameter,
}

/// The extension that a server's answer agrees to, as written; `None` when it agrees to none.
pub fn answer<'a>(fields: &'a Fields, offered: Option<&Offers>) -> Result<Option<&'a [u8]>, BadAnswer> {
    let mut elements = fields.elements(EXTENSIONS);
    let Some(element) = elements.next() else { return Ok(None) };
    let parameters = Parameters::parse(element).map_err(|invalid| match invalid {
        Invalid::Name => BadAnswer::NotOffered,
        Invalid::Parameter => BadAnswer::Parameter,
    })?;
    let (Some(offered), None) = (offered, elements.next()) else { return Err(BadAnswer::NotOffered) };
    match parameters.client_max_window_bits {
        None => Ok(Some(element)),
        Some(Some(_)) if offered.client_max_window_bits => Ok(Some(element)),
        Some(_) => Err(BadAnswer::Parameter),
    }
}

/// A parameter's name and, behind `=`, its value without quotes (RFC 6455 §9.1).
fn split_value(part: &[u8]) -> (&[u8], Option<&[u8]>) {
    let Some(equals) = part.iter().position(|byte| *byte == b'=') else { return (part, None) };
    let value = part[equals + 1..].trim_ascii();
    let unquoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
    (part[..equals].trim_ascii(), Some(unquoted))
}

fn set_flag(flag: &mut bool, value: Option<&[u8]>) -> Option<()> {
    (value.is_none() && !std::mem::replace(flag, true)).then_some(())
}

fn set_once<T>(slot: &mut Option<T>, value: T) -> Option<()> {
    slot.replace(value).is_none().then_some(())
}

/// 8 to 15, without leading zeros (RFC 7692 §7.1.2).
fn window_bits(value: &[u8]) -> Option<u8> {
    match value {
        [digit @ b'8'..=b'9'] => Some(digit - b'0'),
        [b'1', digit @ b'0'..=b'5'] => Some(10 + digit - b'0'),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extensions(values: &[&str]) -> Fields {
        let mut fields = Fields::new();
        values.iter().for_each(|value| fields.push(b"sec-websocket-extensions", value.as_bytes()));
        fields
    }

    #[test]
    fn parameters_are_read() {
        let all = b"permessage-deflate; server_no_context_takeover;client_no_context_takeover ; \
            server_max_window_bits=8; client_max_window_bits = \"15\"";
        let expected = Parameters {
            server_no_context_takeover: true,
            client_no_context_takeover: true,
            server_max_window_bits: Some(8),
            client_max_window_bits: Some(Some(15)),
        };
        assert_eq!(Parameters::parse(all), Ok(expected));
        assert_eq!(Parameters::parse(NAME), Ok(Parameters::default()));
    }

    #[test]
    fn window_bits_are_8_to_15() {
        let taken: Vec<u16> = (0..300u16).filter(|bits| window_bits(bits.to_string().as_bytes()).is_some()).collect();
        assert_eq!(taken, (8..=15).collect::<Vec<u16>>());
        for odd in ["", "08", "+9", "9 ", "\u{661}0", "1e1"] {
            assert_eq!(window_bits(odd.as_bytes()), None, "{odd}");
        }
    }

    #[test]
    fn invalid_elements() {
        for (element, invalid) in [
            ("x-webkit-deflate-frame", Invalid::Name),
            ("permessage-deflate2", Invalid::Name),
            ("permessage-deflate;", Invalid::Parameter),
            ("permessage-deflate; unknown", Invalid::Parameter),
            ("permessage-deflate; server_max_window_bits", Invalid::Parameter),
            ("permessage-deflate; server_max_window_bits=16", Invalid::Parameter),
            ("permessage-deflate; server_no_context_takeover=1", Invalid::Parameter),
            ("permessage-deflate; client_max_window_bits; client_max_window_bits=9", Invalid::Parameter),
            ("permessage-deflate; client_no_context_takeover; client_no_context_takeover", Invalid::Parameter),
        ] {
            assert_eq!(Parameters::parse(element.as_bytes()), Err(invalid), "{element}");
        }
    }

    #[test]
    fn only_valid_deflate_offers_go_on() {
        let fields = extensions(&[
            "bbf-usp-protocol, permessage-deflate; client_max_window_bits=7",
            "permessage-deflate; server_max_window_bits=10,permessage-deflate; client_max_window_bits",
        ]);
        let offers = offers(&fields).unwrap();
        let expected = "permessage-deflate; server_max_window_bits=10, permessage-deflate; client_max_window_bits";
        assert_eq!(String::from_utf8(offers.value).unwrap(), expected);
        assert!(offers.client_max_window_bits);
        assert_eq!(super::offers(&extensions(&["x-one; y=\"permessage-deflate\""])), None);
        assert_eq!(super::offers(&Fields::new()), None);
    }

    #[test]
    fn answers() {
        let plain = offers(&extensions(&["permessage-deflate"]));
        let windowed = offers(&extensions(&["permessage-deflate; client_max_window_bits"]));
        let unasked = extensions(&["permessage-deflate; server_no_context_takeover; server_max_window_bits=12"]);
        assert!(answer(&unasked, plain.as_ref()).unwrap().is_some());
        let sized = extensions(&["permessage-deflate; client_max_window_bits=10"]);
        assert_eq!(answer(&sized, plain.as_ref()), Err(BadAnswer::Parameter));
        assert!(answer(&sized, windowed.as_ref()).unwrap().is_some());
        let unsized_ = extensions(&["permessage-deflate; client_max_window_bits"]);
        assert_eq!(answer(&unsized_, windowed.as_ref()), Err(BadAnswer::Parameter));
        assert_eq!(answer(&sized, None), Err(BadAnswer::NotOffered));
        let twice = extensions(&["permessage-deflate", "permessage-deflate"]);
        assert_eq!(answer(&twice, plain.as_ref()), Err(BadAnswer::NotOffered));
        assert_eq!(answer(&extensions(&["x-other"]), plain.as_ref()), Err(BadAnswer::NotOffered));
        assert_eq!(answer(&extensions(&["", " , "]), plain.as_ref()), Ok(None));
    }
}
