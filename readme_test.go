package watermillpgmq_test

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	watermillpgmq "github.com/watermill-pgmq/watermill-pgmq"
)

// TestReadme_Snippets: the Go code of the README is part of the examples, which are compiled and run.
func TestReadme_Snippets(t *testing.T) {
	t.Parallel()
	examples := unindented(read(t, "example_test.go"))
	snippets := regexp.MustCompile("(?s)\n```go\n(.*?\n)```\n").FindAllStringSubmatch(read(t, "README.md"), -1)
	require.NotEmpty(t, snippets)
	for _, snippet := range snippets {
		require.Contains(t, examples, unindented(snippet[1]))
	}
}

// TestReadme_Configuration: the README's tables name every field, in the order of the code.
func TestReadme_Configuration(t *testing.T) {
	t.Parallel()
	sections := strings.Split(read(t, "README.md"), "\n### ")
	for _, cfg := range []any{
		watermillpgmq.PublisherConfig{},
		watermillpgmq.SubscriberConfig{},
		watermillpgmq.TopicTopology{},
		watermillpgmq.QueueTopology{},
	} {
		of := reflect.TypeOf(cfg)
		var fields, documented []string
		for i := range of.NumField() {
			fields = append(fields, of.Field(i).Name)
		}
		for _, section := range sections {
			text, found := strings.CutPrefix(section, "`"+of.Name()+"`\n\n")
			if !found {
				continue
			}
			table, _, _ := strings.Cut(text, "\n\n")
			for _, row := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\|").FindAllStringSubmatch(table, -1) {
				documented = append(documented, row[1])
			}
		}
		require.Equal(t, fields, documented, of.Name())
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	content, err := os.ReadFile(file)
	require.NoError(t, err)
	return string(content)
}

// unindented is code without its tabs at the beginnings of lines, of which a snippet has fewer than its example.
func unindented(code string) string {
	return regexp.MustCompile(`(?m)^\t+`).ReplaceAllString(code, "")
}
