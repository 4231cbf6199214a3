//go:build unix

package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"

	"github.com/oasgate/oasgate/authz/client"
	"github.com/oasgate/oasgate/gen/apiclient"
	"github.com/oasgate/oasgate/impl/messages"
)

// A client of this API: its token has exactly the scopes which the operations that it will call
// need, and is bound to a key that never leaves the process.
func Example_client() {
	api, stop := dev()
	defer stop()
	ctx := context.Background()

	needed := apiclient.ScopesFor(apiclient.ListMessages, apiclient.CreateMessage)
	source, err := client.New(ctx, client.Config{
		Issuer:   api + "/",
		ClientID: "full", ClientSecret: "for-development-only",
		Audience: "https://quickstarts/api",
		Scopes:   client.Scopes(needed),
		DPoP:     true,
	})
	if err != nil {
		log.Fatal(err) // everything that is wrong with the configuration
	}
	caller, err := source.Client(api)
	if err != nil {
		log.Fatal(err)
	}
	requests, err := apiclient.NewClientWithResponses(api, apiclient.WithHTTPClient(caller))
	if err != nil {
		log.Fatal(err)
	}

	created, err := requests.CreateMessageWithResponse(
		ctx, nil, apiclient.MessageText{Text: "Hello"})
	if err == nil {
		err = client.ProblemOf(created.HTTPResponse, created.Body)
	}
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("asks for", needed)
	for message, err := range messages.All(ctx, requests, nil) { // page by page
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(message.Text, "of", message.Author.Subject)
	}
	missing, err := requests.GetMessageWithResponse(
		ctx, "019ad7c8-09b3-7204-bf92-a8cef806518f", nil)
	if err == nil {
		err = client.ProblemOf(missing.HTTPResponse, missing.Body)
	}
	fmt.Println("not found:", client.IsProblem(err, client.NotFound))
	// Output:
	// asks for [read:messages write:messages]
	// Hello of full@clients
	// not found: true
}

// dev runs `dev` until stop is called.
func dev() (api string, stop func()) {
	folder, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	banner, stdout := io.Pipe()
	ended := make(chan int)
	go func() {
		args := []string{
			"dev",
			"--addr",
			"localhost:0",
			"--database",
			"sqlite:" + filepath.Join(folder, "dev.db"),
		}
		code := app().Run(ctx, args, nil, nil, stdout, io.Discard)
		stdout.Close()
		ended <- code
	}()
	lines := bufio.NewScanner(banner)
	for api == "" && lines.Scan() {
		fmt.Sscanf(lines.Text(), "  API %s", &api)
	}
	go io.Copy(io.Discard, banner)
	return api, func() {
		cancel()
		<-ended
		os.RemoveAll(folder)
	}
}
