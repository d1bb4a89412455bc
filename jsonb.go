package watermillpgmq

import (
	"bytes"
	"cmp"
	"encoding/json"
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
func jsonbKeeps(text []byte) bool {
	if len(text) > maxDocument || !json.Valid(text) || !utf8.Valid(text) {
		return false
	}
	var keys [32][]byte
	w := jsonbWalker{text: text, keys: keys[:0]}
	return w.value(0)
}

// jsonbWalker walks through JSON that is known to be valid. Its methods begin at w.at and leave it behind what they
// walked through, or answer false: jsonb would not keep this.
type jsonbWalker struct {
	text []byte
	at   int
	// keys of the objects around w.at, unescaped, the innermost object's last.
	keys [][]byte
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
	case 't', 'n':
		w.at += len("true")
	case 'f':
		w.at += len("false")
	default:
		return w.number()
	}
	return true
}

// next skips white space and returns the byte there.
func (w *jsonbWalker) next() byte {
	for {
		switch c := w.text[w.at]; c {
		case ' ', '\t', '\r', '\n':
			w.at++
		default:
			return c
		}
	}
}

func (w *jsonbWalker) object(depth int) bool {
	outer := len(w.keys)
	w.at++ // the brace
	for w.next() != '}' {
		key, ok := w.string()
		if !ok {
			return false
		}
		w.keys = append(w.keys, key)
		w.next()
		w.at++ // the colon
		if !w.value(depth) {
			return false
		}
		if w.next() == ',' {
			w.at++
			w.next()
		}
	}
	w.at++
	if !distinct(w.keys[outer:]) {
		return false
	}
	w.keys = w.keys[:outer]
	return true
}

func (w *jsonbWalker) array(depth int) bool {
	w.at++ // the bracket
	for w.next() != ']' {
		if !w.value(depth) {
			return false
		}
		if w.next() == ',' {
			w.at++
		}
	}
	w.at++
	return true
}

// string returns what the string stands for.
func (w *jsonbWalker) string() ([]byte, bool) {
	w.at++ // the quote
	start, escaped := w.at, false
	for {
		switch w.text[w.at] {
		case '"':
			inside := w.text[start:w.at]
			w.at++
			if !escaped {
				return inside, true
			}
			unescaped, ok := appendUnescaped(make([]byte, 0, len(inside)), inside)
			return unescaped, ok && bytes.IndexByte(unescaped, 0) < 0
		case '\\':
			escaped = true
			w.at++
		}
		w.at++
	}
}

func (w *jsonbWalker) number() bool {
	start := w.at
	plain := true
	for ; w.at < len(w.text); w.at++ {
		c := w.text[w.at]
		if '0' <= c && c <= '9' || c == '.' {
			continue
		}
		if c != '-' && c != '+' && c != 'e' && c != 'E' {
			break
		}
		plain = false
	}
	token := w.text[start:w.at]
	return plain && len(token) <= maxFractionDigits || w.keepsNumber(token)
}

// keepsNumber counts digits by excess: 100e-1 as three whole digits and one in the fraction.
func (w *jsonbWalker) keepsNumber(token []byte) bool {
	digits, negative := bytes.CutPrefix(token, []byte("-"))
	exponent := 0
	if i := bytes.IndexAny(digits, "eE"); i >= 0 {
		var err error
		exponent, err = strconv.Atoi(string(digits[i+1:]))
		if err != nil || exponent < -maxFractionDigits || exponent > maxWholeDigits {
			return false
		}
		digits = digits[:i]
	}
	if negative && len(bytes.Trim(digits, "0.")) == 0 {
		return false // jsonb knows one zero only
	}
	whole, fraction, _ := bytes.Cut(digits, []byte("."))
	wholeDigits := len(whole) + max(exponent, 0)
	fractionDigits := len(fraction) + max(-exponent, 0)
	w.expansion += max(exponent, -exponent)
	return wholeDigits <= maxWholeDigits && fractionDigits <= maxFractionDigits && w.expansion <= maxExpansion
}

// distinct says whether no two keys are equal. It may reorder them.
func distinct(keys [][]byte) bool {
	const few = 12 // up to here comparing each with each is cheaper than sorting
	if len(keys) <= few {
		for i, key := range keys {
			for _, other := range keys[:i] {
				if bytes.Equal(key, other) {
					return false
				}
			}
		}
		return true
	}
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
