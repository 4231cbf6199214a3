// Package messages is for Go programs that call this API, beside the generated client:
//
//	source, err := client.New(ctx, client.Config{ … })     // authz/client: tokens and retries
//	caller, err := source.Client(url)
//	api, err := apiclient.NewClientWithResponses(url, apiclient.WithHTTPClient(caller))
//	for message, err := range messages.All(ctx, api, nil) { … }
//
// None of these packages compiles a server.
package messages

import (
	"context"
	"iter"

	"github.com/oasgate/oasgate/authz/client"
	"github.com/oasgate/oasgate/gen/apiclient"
)

const problemTypes = "https://github.com/oasgate/oasgate/blob/main/impl/PROBLEMS.md#"

// The types of this API's own problems, which impl/PROBLEMS.md describes. Those of every API that
// package authz guards are in authz/client.
const (
	PreconditionFailed   client.ProblemType = problemTypes + "precondition-failed"
	IdempotencyKeyReused client.ProblemType = problemTypes + "idempotency-key-reused"
)

// All iterates over all messages that the caller may read, newest first. params can be nil. A
// refusal is a [*client.Problem].
func All(
	ctx context.Context, api apiclient.ClientWithResponsesInterface,
	params *apiclient.ListMessagesParams,
) iter.Seq2[apiclient.Message, error] {
	asked := apiclient.ListMessagesParams{}
	if params != nil {
		asked = *params
	}
	return client.Pages(func(cursor string) ([]apiclient.Message, string, error) {
		if cursor != "" {
			asked.Cursor = &cursor
		}
		page, err := api.ListMessagesWithResponse(ctx, &asked)
		if err == nil {
			err = client.ProblemOf(page.HTTPResponse, page.Body)
		}
		if err != nil {
			return nil, "", err
		}
		next := ""
		if page.JSON200.Next != nil {
			next = *page.JSON200.Next
		}
		return page.JSON200.Messages, next, nil
	})
}
