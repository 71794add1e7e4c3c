package markdown

import "strings"

// Block is a fenced code block.
type Block struct {
	// Language is the first word after the fence.
	Language string
	// Note is the rest of that line.
	Note string
	// Body is the text between the fences, indented as the fence is not.
	Body string
	// Line is the number of the fence's line, from 1.
	Line int
}

// Blocks returns a document's fenced code blocks in order. Fences may be indented, as in lists.
func Blocks(text string) []Block {
	var blocks []Block
	var open *Block
	indent := ""
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSuffix(line, "\n")
		trimmed := strings.TrimLeft(line, " ")
		fence := strings.HasPrefix(trimmed, "```")
		switch {
		case open == nil && fence:
			language, note, _ := strings.Cut(strings.TrimPrefix(trimmed, "```"), " ")
			open = &Block{Language: language, Note: strings.TrimSpace(note), Line: number}
			indent = line[:len(line)-len(trimmed)]
		case open != nil && fence:
			blocks = append(blocks, *open)
			open = nil
		case open != nil:
			open.Body += strings.TrimPrefix(line, indent) + "\n"
		}
	}
	return blocks
}
