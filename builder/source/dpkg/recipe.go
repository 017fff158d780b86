package dpkg

// The recipes stand in the keys of layers that are kept, so that no layer of an older
// imgbuild is taken for one of this. They are digests of what made-up packages give, and a test
// wants them to be so: code that lays out another tree cannot stay under the old key.
const (
	LayerRecipe = "9258edce91766335" // of packages' layers and kernels' indices
	topRecipe   = "3cb7acbab02a6a58" // of what maintainer scripts would have made
)

// Revision changes with the table, with what stands for a section, and with the recipe.
func Revision() string {
	all := topRecipe + "\x00" + string(tableText)
	for _, text := range sortedKeys(snippets) {
		all += "\x00" + text + "\x00" + snippets[text]
	}
	return digest(all)[:16]
}
