// Package markdown finds the fenced code blocks of a document, for tests that run or compile what documents show.
package markdown
