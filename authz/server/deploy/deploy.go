// Package deploy holds the files that run a program in containers, on Kubernetes and by systemd.
package deploy

import (
	"bytes"
	"embed"
	"strings"
	"text/template"
)

// Options describe a program.
type Options struct {
	Name string // of the program: lower case letters, digits and hyphens
	Go   string // version of the Go image, such as 1.26
	// Stores says that the program has the settings DATABASE_URL and REPLAY_STORE, for PostgreSQL
	// or SQLite, and Redis.
	Stores bool
}

//go:embed files
var files embed.FS

// Files returns the content of the files by their paths in the repository of the program. Those in
// folder, such as "deploy", are for Kubernetes and systemd.
func Files(o Options, folder string) (map[string][]byte, error) {
	prefix := strings.ToUpper(strings.ReplaceAll(o.Name, "-", "_"))
	all := map[string][]byte{}
	for name, path := range map[string]string{
		"Dockerfile":      "Dockerfile",
		"dockerignore":    ".dockerignore",
		"compose.yaml":    "compose.yaml",
		"kubernetes.yaml": folder + "/kubernetes.yaml",
		"unit.service":    folder + "/" + o.Name + ".service",
	} {
		text, err := template.ParseFS(files, "files/"+name)
		if err != nil {
			return nil, err
		}
		var filled bytes.Buffer
		err = text.Execute(&filled, struct {
			Options
			Prefix string
		}{o, prefix})
		if err != nil {
			return nil, err
		}
		all[path] = filled.Bytes()
	}
	return all, nil
}
