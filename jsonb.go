package watermillpgmq

import (
	"bytes"
	"cmp"
	"slices"
	"strconv"
	"unicode/utf8"
)

// What we let a jsonb document be. Where Postgres itself has a limit, this is it or lies well below it.
const (
	// maxDocument is the longest document in bytes. jsonb ends at 256 MiB in its own format, of which one byte of
	// text may need six.
	maxDocument = 16 << 20
	// maxDepth is the deepest nesting. Postgres stops where its stack does: at about 10,000 with the default
	// max_stack_depth of 2 MB.
	maxDepth = 512
	// maxWholeDigits and maxFractionDigits bound a number, written without exponent: what numeric holds.
	maxWholeDigits    = 131072
	maxFractionDigits = 16383
	// maxExpansion is how many digits the exponents of a document may stand for. jsonb prints numbers without
	// exponent: a hundred kilobytes of "1e131071" can be stored but would take a gigabyte, more than Postgres
	// can return, to read.
	maxExpansion = 1 << 20
)

// jsonbKeeps says whether text is JSON that a jsonb holds and gives back equal in value: the same members, elements
// and strings, and numbers to the last digit. Order of members, white space and the notation of numbers are not
// value; the sign of a negative zero is.
//
// Every published message passes here. One walk that finds out all of it is faster than json.Valid alone.
func jsonbKeeps(text []byte) bool {
	if len(text) > maxDocument || !utf8.Valid(text) {
		return false
	}
	w := jsonbWalker{text: text}
	return w.value(0) && w.next() == 0 && w.at == len(text)
}

// jsonbWalker walks through JSON in UTF-8. Its methods begin at w.at and leave it behind what they walked through, or
// answer false: this is not JSON, or jsonb would not keep it.
type jsonbWalker struct {
	text []byte
	at   int
	// expansion is how many digits the exponents so far stand for.
	expansion int
}

func (w *jsonbWalker) value(depth int) bool {
	switch w.next() {
	case '{':
		return depth < maxDepth && w.object(depth+1)
	case '[':
		return depth < maxDepth && w.array(depth+1)
	case '"':
		_, ok := w.string()
		return ok
	case 't':
		return w.literal("true")
	case 'f':
		return w.literal("false")
	case 'n':
		return w.literal("null")
	}
	return w.number()
}

func (w *jsonbWalker) object(depth int) bool {
	w.at++ // the brace
	if w.next() == '}' {
		w.at++
		return true
	}
	var onStack [fewKeys][]byte
	keys := onStack[:0]
	for {
		if w.next() != '"' {
			return false
		}
		key, ok := w.key()
		if !ok || w.next() != ':' {
			return false
		}
		keys = append(keys, key)
		w.at++
		if !w.value(depth) {
			return false
		}
		end := w.next()
		w.at++
		if end == '}' {
			return distinct(keys)
		}
		if end != ',' {
			return false
		}
	}
}

func (w *jsonbWalker) array(depth int) bool {
	w.at++ // the bracket
	if w.next() == ']' {
		w.at++
		return true
	}
	for w.value(depth) {
		end := w.next()
		w.at++
		if end != ',' {
			return end == ']'
		}
	}
	return false
}

// key returns what a string stands for.
func (w *jsonbWalker) key() ([]byte, bool) {
	start := w.at + len(`"`)
	escaped, ok := w.string()
	if !ok {
		return nil, false
	}
	inside := w.text[start : w.at-len(`"`)]
	if !escaped {
		return inside, true
	}
	return appendUnescaped(nil, inside)
}

func (w *jsonbWalker) string() (escaped, ok bool) {
	for w.at++; w.at < len(w.text); w.at++ {
		c := w.text[w.at]
		if c == '"' {
			w.at++
			return escaped, true
		}
		if c < ' ' {
			return escaped, false
		}
		if c == '\\' {
			escaped = true
			w.at++
			if !w.escape() {
				return escaped, false
			}
		}
	}
	return escaped, false
}

// escape looks at what follows a backslash, and stops at its last byte.
func (w *jsonbWalker) escape() bool {
	switch w.peek() {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return true
	case 'u':
		r, size := decodeUnicodeEscape(w.text[w.at+1:])
		w.at += size
		return size > 0 && r != 0
	}
	return false
}

func (w *jsonbWalker) number() bool {
	negative := w.peek() == '-'
	if negative {
		w.at++
	}
	start := w.at
	whole := w.digits()
	if whole == 0 || whole > 1 && w.text[start] == '0' {
		return false
	}
	fraction := 0
	if w.peek() == '.' {
		w.at++
		if fraction = w.digits(); fraction == 0 {
			return false
		}
	}
	if negative && len(bytes.Trim(w.text[start:w.at], "0.")) == 0 {
		return false // jsonb knows one zero only
	}
	exponent := 0
	if c := w.peek(); c == 'e' || c == 'E' {
		var ok bool
		if exponent, ok = w.exponent(); !ok {
			return false
		}
	}
	// Counted by excess: 100e-1 has three whole digits and one in the fraction.
	w.expansion += max(exponent, -exponent)
	return whole+max(exponent, 0) <= maxWholeDigits &&
		fraction+max(-exponent, 0) <= maxFractionDigits && w.expansion <= maxExpansion
}

func (w *jsonbWalker) exponent() (int, bool) {
	w.at++ // the e
	start := w.at
	if c := w.peek(); c == '+' || c == '-' {
		w.at++
	}
	if w.digits() == 0 {
		return 0, false
	}
	exponent, err := strconv.Atoi(string(w.text[start:w.at]))
	return exponent, err == nil && -maxFractionDigits <= exponent && exponent <= maxWholeDigits
}

// digits walks through digits and returns their number.
func (w *jsonbWalker) digits() int {
	start := w.at
	for c := w.peek(); '0' <= c && c <= '9'; c = w.peek() {
		w.at++
	}
	return w.at - start
}

func (w *jsonbWalker) literal(text string) bool {
	if !bytes.HasPrefix(w.text[w.at:], []byte(text)) {
		return false
	}
	w.at += len(text)
	return true
}

// next skips white space and returns the byte there.
func (w *jsonbWalker) next() byte {
	for {
		switch c := w.peek(); c {
		case ' ', '\t', '\r', '\n':
			w.at++
		default:
			return c
		}
	}
}

// peek returns the byte at w.at. At the end it is 0, which JSON does not contain.
func (w *jsonbWalker) peek() byte {
	if w.at < len(w.text) {
		return w.text[w.at]
	}
	return 0
}

// fewKeys is how many keys are compared each with each sooner than sorted.
const fewKeys = 12

// distinct says whether no two keys are equal.
func distinct(keys [][]byte) bool {
	if len(keys) > fewKeys {
		return distinctSorted(slices.Clone(keys)) // the clone lets the caller's keys stay on the stack
	}
	for i, key := range keys {
		for _, other := range keys[:i] {
			if bytes.Equal(key, other) {
				return false
			}
		}
	}
	return true
}

func distinctSorted(keys [][]byte) bool {
	slices.SortFunc(keys, func(a, b []byte) int {
		return cmp.Or(cmp.Compare(len(a), len(b)), bytes.Compare(a, b))
	})
	for i := range len(keys) - 1 {
		if bytes.Equal(keys[i], keys[i+1]) {
			return false
		}
	}
	return true
}
