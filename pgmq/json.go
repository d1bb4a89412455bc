package pgmq

import (
	"encoding/binary"
	"unicode/utf8"
)

// isJSON says whether Postgres can read raw as JSON; what is not UTF-8 it cannot. It decides as
// encoding/json.Valid does, several times as fast: every message that is sent passes through here.
func isJSON(raw []byte) bool {
	i := jsonValue(raw, skipSpace(raw, 0), maxNesting)
	return i >= 0 && skipSpace(raw, i) == len(raw) && utf8.Valid(raw)
}

// maxNesting is how deep arrays and objects may be within each other.
const maxNesting = 10_000

// jsonValue, as those below, takes the index at which something begins, and returns the one behind it, or -1
// where it is not what it should be.
func jsonValue(raw []byte, i, depth int) int {
	if i == len(raw) {
		return -1
	}
	switch raw[i] {
	case '"':
		return jsonString(raw, i)
	case '{':
		return jsonMembers(raw, i, '}', depth-1)
	case '[':
		return jsonMembers(raw, i, ']', depth-1)
	case 't':
		return jsonWord(raw, i, "true")
	case 'f':
		return jsonWord(raw, i, "false")
	case 'n':
		return jsonWord(raw, i, "null")
	}
	return jsonNumber(raw, i)
}

// jsonMembers is an object or an array, by what it ends with.
func jsonMembers(raw []byte, i int, end byte, depth int) int {
	if depth < 0 {
		return -1
	}
	i = skipSpace(raw, i+1)
	if i < len(raw) && raw[i] == end {
		return i + 1
	}
	for {
		if end == '}' {
			if i = jsonName(raw, i); i < 0 {
				return -1
			}
		}
		if i = jsonValue(raw, i, depth); i < 0 {
			return -1
		}
		i = skipSpace(raw, i)
		switch {
		case i == len(raw):
			return -1
		case raw[i] == end:
			return i + 1
		case raw[i] != ',':
			return -1
		}
		i = skipSpace(raw, i+1)
	}
}

// jsonName is the name of an object's member, with its colon and all space around.
func jsonName(raw []byte, i int) int {
	if i == len(raw) || raw[i] != '"' {
		return -1
	}
	if i = jsonString(raw, i); i < 0 {
		return -1
	}
	i = skipSpace(raw, i)
	if i == len(raw) || raw[i] != ':' {
		return -1
	}
	return skipSpace(raw, i+1)
}

func jsonString(raw []byte, i int) int {
	i++
	for {
		i = skipPlain(raw, i)
		if i == len(raw) || raw[i] < ' ' {
			return -1
		}
		if raw[i] == '"' {
			return i + 1
		}
		if i = jsonEscape(raw, i+1); i < 0 {
			return -1
		}
	}
}

// skipPlain skips the bytes that stand for themselves in a string, eight at a time while it can.
func skipPlain(raw []byte, i int) int {
	const each, top = 0x0101010101010101, 0x8080808080808080
	for ; i+8 <= len(raw); i += 8 {
		x := binary.LittleEndian.Uint64(raw[i:])
		// A byte below n has its top bit set in (x - each*n) &^ x, since subtracting borrows there. The borrow may
		// make a byte after it look so too, but none is overlooked. A byte equal to c is one below 1 in x ^ each*c.
		quote, backslash := x^each*'"', x^each*'\\'
		if ((x-each*' ')&^x|(quote-each)&^quote|(backslash-each)&^backslash)&top != 0 {
			break
		}
	}
	for i < len(raw) && raw[i] >= ' ' && raw[i] != '"' && raw[i] != '\\' {
		i++
	}
	return i
}

// jsonEscape is what follows a backslash.
func jsonEscape(raw []byte, i int) int {
	if i >= len(raw) {
		return -1
	}
	switch raw[i] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return i + 1
	case 'u':
		for range 4 {
			i++
			if i == len(raw) || !isHexDigit(raw[i]) {
				return -1
			}
		}
		return i + 1
	}
	return -1
}

func jsonWord(raw []byte, i int, word string) int {
	if len(raw)-i < len(word) || string(raw[i:i+len(word)]) != word {
		return -1
	}
	return i + len(word)
}

func jsonNumber(raw []byte, i int) int {
	if raw[i] == '-' {
		i++
	}
	if i < len(raw) && raw[i] == '0' {
		i++ // and no digit after it
	} else if i = jsonDigits(raw, i); i < 0 {
		return -1
	}
	if i < len(raw) && raw[i] == '.' {
		if i = jsonDigits(raw, i+1); i < 0 {
			return -1
		}
	}
	if i < len(raw) && (raw[i] == 'e' || raw[i] == 'E') {
		i++
		if i < len(raw) && (raw[i] == '+' || raw[i] == '-') {
			i++
		}
		return jsonDigits(raw, i)
	}
	return i
}

// jsonDigits is at least one of them.
func jsonDigits(raw []byte, i int) int {
	start := i
	for i < len(raw) && '0' <= raw[i] && raw[i] <= '9' {
		i++
	}
	if i == start {
		return -1
	}
	return i
}

func isHexDigit(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func skipSpace(raw []byte, i int) int {
	for i < len(raw) && (raw[i] == ' ' || raw[i] == '\n' || raw[i] == '\t' || raw[i] == '\r') {
		i++
	}
	return i
}
