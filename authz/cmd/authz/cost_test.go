package main

import (
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"go.yaml.in/yaml/v4"
)

// TestCost compares the cost of commands with that of reading the same document with kin-openapi.
// Both are processes, measured in one run.
func TestCost(t *testing.T) {
	if raceDetector || testing.Short() {
		t.Skip("measured without the race detector")
	}
	dir := t.TempDir()
	nested, _ := nestedResources(t, dir, false)
	nestedJSON := strings.TrimSuffix(nested, ".yaml") + ".json"
	if err := os.Rename(nested, nestedJSON); err != nil {
		t.Fatal(err)
	}
	chains, _ := chained(t, dir, false)
	documents := []string{nestedJSON, chains}
	for _, operations := range []int{1200, 5000} {
		doc := described(operations)
		name := strconv.Itoa(operations)
		text, err := yaml.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		inYAML := filepath.Join(dir, name+".yaml")
		if err := os.WriteFile(inYAML, text, 0o644); err != nil {
			t.Fatal(err)
		}
		documents = append(documents, write(t, dir, name+".json", doc), inYAML)
	}
	if published := os.Getenv("OASGATE_TEST_DOCUMENTS"); published != "" {
		found, _ := filepath.Glob(filepath.Join(published, "*.json"))
		documents = append(documents, slices.DeleteFunc(found, func(file string) bool {
			info, err := os.Stat(file)
			return err != nil || info.Size() < 100<<10 // the start of the process costs more
		})...)
	}
	for _, document := range documents {
		t.Run(filepath.Base(document), func(t *testing.T) { testCost(t, document) })
	}
}

// testCost compares the minimum of several tries, because a busy machine makes some slower. It ends
// as soon as all are within their limits.
func testCost(t *testing.T, document string) {
	const limit, tries = 1.5, 8
	commands := []struct {
		args      []string
		documents float64
	}{
		{[]string{"plan", document}, 1},
		{[]string{"scopes", "--package=api", document}, 1},
		{[]string{"diff", document, document}, 2},
		{[]string{"lint", "--format=json", document}, 1},
	}
	none := cost{math.MaxInt64, math.MaxInt64}
	read := none
	costs := []cost{none, none, none, none}
	for try := 1; ; try++ {
		read = read.least(measure(t, reading, document))
		exceeded := false
		for i, c := range commands {
			costs[i] = costs[i].least(measure(t, c.args...))
			time, memory := costs[i].over(read, c.documents)
			exceeded = exceeded || max(time, memory) > limit
		}
		if exceeded && try < tries {
			continue
		}
		for i, c := range commands {
			time, memory := costs[i].over(read, c.documents)
			t.Logf("%-6s %.2f times the processor time, %.2f times the memory",
				c.args[0], time, memory)
			if max(time, memory) > limit {
				t.Errorf("%s costs %.2f times the processor time and %.2f times the memory of "+
					"reading, want at most %.1f", c.args[0], time, memory, limit)
			}
		}
		return
	}
}

// cost is what a process has used.
type cost struct {
	time   time.Duration // of the processor
	memory int64         // at its peak, in KiB; 0 on systems other than Linux
}

func (c cost) least(other cost) cost {
	return cost{min(c.time, other.time), min(c.memory, other.memory)}
}

// over returns how many times as much c is as the reading of some documents.
func (c cost) over(reading cost, documents float64) (time, memory float64) {
	return float64(c.time) / float64(reading.time) / documents,
		float64(c.memory) / float64(max(1, reading.memory)) / documents
}

// costVariable names the environment variable that makes TestCostProcess the process to measure.
const costVariable = "OASGATE_TEST_COST"

// reading is the argument of TestCostProcess that makes kin-openapi read a document.
const reading = "reading"

func measure(t *testing.T, args ...string) cost {
	t.Helper()
	command := exec.Command(os.Args[0], "-test.run=^TestCostProcess$")
	command.Env = append(os.Environ(), costVariable+"="+strings.Join(args, "\n"))
	out, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v: %s", args, err, out)
	}
	state := command.ProcessState
	c := cost{time: state.UserTime() + state.SystemTime()}
	if peak := peakMemory.FindSubmatch(out); peak != nil {
		c.memory, err = strconv.ParseInt(string(peak[1]), 10, 64)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// peakMemory matches the most memory that a process has had, in its status on Linux. What the
// kernel tells its parent is at least what the parent had when it started it.
var peakMemory = regexp.MustCompile(`VmHWM:\s*(\d+)`)

// TestCostProcess is not a test but the process that measure starts.
func TestCostProcess(t *testing.T) {
	text, ok := os.LookupEnv(costVariable)
	if !ok {
		t.Skip("only for TestCost")
	}
	defer func() {
		status, _ := os.ReadFile("/proc/self/status")
		fmt.Printf("%s\n", peakMemory.Find(status))
	}()
	args := strings.Split(text, "\n")
	if args[0] == reading {
		if _, err := openapi3.NewLoader().LoadFromFile(args[1]); err != nil {
			t.Fatal(err)
		}
		return
	}
	collectLess()
	// For a document with faults, scopes fails only after all of its work.
	code := run(t.Context(), args, strings.NewReader(""), io.Discard, os.Stderr)
	if code == unable && args[0] != "scopes" {
		t.Fatal("exit code 2")
	}
}

// described returns a document that consists mostly of responses, like most documents.
func described(operations int) object {
	doc, paths, schemas := skeleton("3.1.0")
	answer := func() object {
		members := object{}
		for _, name := range []string{"id", "name", "owner"} {
			members[name] = object{"type": "string", "description": "What " + name + " is for."}
		}
		return object{"type": "object", "additionalProperties": false, "properties": members}
	}
	schemas["Input"] = object{
		"type":                 "object",
		"additionalProperties": false,
		"properties":           object{"name": object{"type": "string", "maxLength": 100}},
	}
	n := 0
	for n < operations {
		path := "/things" + strings.Repeat("x", n%7) + "/" + time.Duration(n).String()
		items := object{}
		for _, method := range []string{"get", "put", "post", "delete"} {
			o := object{
				"operationId": method + path, "security": requirement(n, "bearerAuth", false), "summary": "An operation.",
				"responses": object{
					"200": object{"description": "fine", "content": jsonContent(answer())},
					"401": object{"description": "no"}, "403": object{"description": "no"},
				},
			}
			if method == "put" || method == "post" {
				o["requestBody"] = object{
					"required": true,
					"content":  jsonContent(schemaRef("Input")),
				}
			}
			items[method] = o
			n++
		}
		paths[path] = items
	}
	return doc
}
