package pgmq

import (
	"strconv"
	"strings"
)

// stdArg is an argument as every driver of database/sql takes it: arrays become Postgres's own text form
// of them, which the statement casts.
func stdArg(arg any) any {
	switch v := arg.(type) {
	case []int64:
		return arrayText(len(v), func(i int) (string, bool) { return strconv.FormatInt(v[i], 10), true })
	case []string:
		return arrayText(len(v), func(i int) (string, bool) { return v[i], true })
	case []*string:
		return arrayText(len(v), func(i int) (string, bool) {
			if v[i] == nil {
				return "", false
			}
			return *v[i], true
		})
	}
	return arg
}

// texts are messages as array parameters; nil is SQL NULL. All texts are parts of one, which is one
// allocation instead of many.
func texts(msgs []Outgoing) (bodies, headers []*string) {
	size, n := 0, 0
	for i := range msgs {
		size += len(msgs[i].Body) + len(msgs[i].Headers)
		n += notNil(msgs[i].Body) + notNil(msgs[i].Headers)
	}
	var all strings.Builder
	all.Grow(size)
	parts := make([]string, 0, n) // never grows: the elements are pointed at
	add := func(raw []byte) *string {
		if raw == nil {
			return nil
		}
		start := all.Len()
		all.Write(raw)
		parts = append(parts, all.String()[start:])
		return &parts[len(parts)-1]
	}
	list := make([]*string, 2*len(msgs))
	bodies, headers = list[:len(msgs):len(msgs)], list[len(msgs):]
	for i := range msgs {
		bodies[i], headers[i] = add(msgs[i].Body), add(msgs[i].Headers)
	}
	return bodies, headers
}

func notNil(raw []byte) int {
	if raw == nil {
		return 0
	}
	return 1
}

// arrayText is an array as Postgres reads it: {"a","b",NULL}. Everything is quoted, so only quotes and
// backslashes need care.
func arrayText(n int, element func(i int) (text string, ok bool)) string {
	var b strings.Builder
	b.WriteByte('{')
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		text, ok := element(i)
		if !ok {
			b.WriteString("NULL")
			continue
		}
		b.WriteByte('"')
		for {
			at := strings.IndexAny(text, `"\`)
			if at < 0 {
				break
			}
			b.WriteString(text[:at])
			b.WriteByte('\\')
			b.WriteByte(text[at])
			text = text[at+1:]
		}
		b.WriteString(text)
		b.WriteByte('"')
	}
	b.WriteByte('}')
	return b.String()
}
