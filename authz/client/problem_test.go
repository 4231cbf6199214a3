package client

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestProblemOf(t *testing.T) {
	const document = `{"type":"` + string(NotFound) +
		`","title":"t","status":999,"detail":"d","more":1}`
	for _, test := range []struct {
		status      int
		media, body string
		want        string
		kind        ProblemType
	}{
		{200, "application/problem+json", document, "<nil>", ""},
		{404, "application/problem+json; charset=utf-8", document, "404 t: d", NotFound},
		{404, "text/html", document, "404 Not Found", "about:blank"},
		{502, "application/problem+json", "{", "502 Bad Gateway", "about:blank"},
		{400, "application/problem+json", `{"title":"t"}`, "400 t", "about:blank"},
	} {
		response := &http.Response{
			StatusCode: test.status, Header: http.Header{"Content-Type": {test.media}},
		}
		err := ProblemOf(response, []byte(test.body))
		if fmt.Sprint(err) != test.want ||
			IsProblem(fmt.Errorf("x: %w", err), test.kind) == (err == nil) {
			t.Errorf("%+v: %v", test, err)
		}
	}
}

// The constants are the types that PROBLEMS.md describes.
func TestProblemTypes(t *testing.T) {
	described, err := os.ReadFile("../PROBLEMS.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("problem.go")
	if err != nil {
		t.Fatal(err)
	}
	fragments := func(pattern string, text []byte) (all []string) {
		for _, found := range regexp.MustCompile(pattern).FindAllSubmatch(text, -1) {
			all = append(all, string(found[1]))
		}
		slices.Sort(all)
		return all
	}
	want := fragments("(?m)^##+ `?([a-z-]+)`?$", described)
	got := fragments(`problemTypes \+ "([a-z-]+)"`, source)
	if !slices.Equal(got, want) || len(want) < 20 {
		t.Errorf("the constants are\n%q, PROBLEMS.md has\n%q", got, want)
	}
}

func TestPages(t *testing.T) {
	pages := map[string]struct {
		items []int
		next  string
		err   error
	}{
		"": {[]int{1, 2}, "a", nil}, "a": {nil, "b", nil}, "b": {[]int{3}, "", nil},
		"loop": {[]int{4}, "loop", nil}, "down": {nil, "", errors.New("down")},
	}
	walk := func(start string, limit int) (seen []string) {
		get := func(cursor string) ([]int, string, error) {
			if cursor == "" {
				cursor = start
			}
			p := pages[cursor]
			return p.items, p.next, p.err
		}
		for item, err := range Pages(get) {
			if err != nil {
				return append(seen, err.Error())
			}
			if seen = append(seen, fmt.Sprint(item)); len(seen) == limit {
				break
			}
		}
		return seen
	}
	for _, test := range []struct {
		start string
		limit int
		want  string
	}{
		{"", 9, "1 2 3"}, {"", 2, "1 2"}, {"down", 9, "down"},
		{"loop", 9, "4 client: the cursor of the next page is that of the current page"},
	} {
		if got := strings.Join(walk(test.start, test.limit), " "); got != test.want {
			t.Errorf("from %q: %s, want %s", test.start, got, test.want)
		}
	}
}
