package watermillpgmq

import (
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// jsonbHoldsString says whether a jsonb string can be this text: jsonb knows neither NUL nor anything but UTF-8.
func jsonbHoldsString(text string) bool {
	return strings.IndexByte(text, 0) < 0 && utf8.ValidString(text)
}

// appendJSONString appends text as a JSON string: its quotes, and between them what must be escaped as Postgres
// escapes it. Everything else stands for itself, so that text other than UTF-8 would not become JSON.
func appendJSONString[T ~string | ~[]byte](dst []byte, text T) []byte {
	dst = append(dst, '"')
	done := 0
	for i := range len(text) {
		c := text[i]
		if jsonEscapeSize(c) == 1 {
			continue
		}
		dst = append(dst, text[done:i]...)
		done = i + 1
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\b':
			dst = append(dst, '\\', 'b')
		case '\f':
			dst = append(dst, '\\', 'f')
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			const hex = "0123456789abcdef"
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
	}
	dst = append(dst, text[done:]...)
	return append(dst, '"')
}

// jsonEscapeSize is the number of bytes that c takes in a JSON string.
func jsonEscapeSize(c byte) int {
	switch {
	case c >= ' ' && c != '"' && c != '\\':
		return 1
	case c == '"' || c == '\\' || c == '\b' || c == '\f' || c == '\n' || c == '\r' || c == '\t':
		return 2
	}
	return 6
}

// appendUnescaped appends what the inside of a JSON string stands for. It answers false, with dst of no use, for
// what cannot be the inside of a string, and for a surrogate without its other half.
func appendUnescaped[T ~string | ~[]byte](dst []byte, inside T) ([]byte, bool) {
	// Byte by byte: JSON within a JSON string is full of escapes, and copying short runs takes longer.
	for i := 0; i < len(inside); {
		c := inside[i]
		i++
		if jsonEscapeSize(c) == 1 {
			dst = append(dst, c)
			continue
		}
		if c != '\\' || i == len(inside) {
			return dst, false
		}
		c = inside[i]
		i++
		switch c {
		case '"', '\\', '/':
			dst = append(dst, c)
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'n':
			dst = append(dst, '\n')
		case 'r':
			dst = append(dst, '\r')
		case 't':
			dst = append(dst, '\t')
		case 'u':
			r, size := decodeUnicodeEscape(inside[i:])
			if size == 0 {
				return dst, false
			}
			dst = utf8.AppendRune(dst, r)
			i += size
		default:
			return dst, false
		}
	}
	return dst, true
}

// decodeUnicodeEscape reads the four digits after a \u, and after a high surrogate also the \uXXXX of the low one.
// Size is what it read; 0 means that there is no character.
func decodeUnicodeEscape[T ~string | ~[]byte](digits T) (r rune, size int) {
	r, ok := decodeHex4(digits)
	switch {
	case !ok:
		return 0, 0
	case !utf16.IsSurrogate(r):
		return r, len("XXXX")
	case len(digits) < len(`XXXX\uXXXX`) || digits[4] != '\\' || digits[5] != 'u':
		return 0, 0
	}
	low, ok := decodeHex4(digits[len(`XXXX\u`):])
	r = utf16.DecodeRune(r, low)
	if !ok || r == utf8.RuneError { // no pair of surrogates means U+FFFD
		return 0, 0
	}
	return r, len(`XXXX\uXXXX`)
}

func decodeHex4[T ~string | ~[]byte](digits T) (rune, bool) {
	if len(digits) < 4 {
		return 0, false
	}
	var r rune
	for i := range 4 {
		c := digits[i]
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}
