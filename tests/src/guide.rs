//! A guide in `deploy/`, and the commands in it: the fenced blocks `sh`, which a test runs as they stand.

use crate::machine::top;

/// A document, and which of its blocks were not taken yet.
#[derive(Debug)]
pub struct Guide {
    name: String,
    blocks: Vec<Block>,
}

#[derive(Debug)]
struct Block {
    section: String,
    text: String,
    is_taken: bool,
}

impl Guide {
    /// Reads the document with this name in `deploy/`.
    pub fn read(name: &str) -> Self {
        let path = top().join("deploy").join(name);
        let text = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
        let (mut section, mut blocks) = (String::new(), Vec::new());
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if line.starts_with('#') {
                section = line.trim_start_matches('#').trim().to_owned();
            }
            if let Some(language) = line.strip_prefix("```") {
                let inside: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
                if language == "sh" {
                    blocks.push(Block {
                        section: section.clone(),
                        text: inside.join("\n"),
                        is_taken: false,
                    });
                }
            }
        }
        Self {
            name: name.to_owned(),
            blocks,
        }
    }

    /// Takes the next block of the section with this heading. Fails the test if there is none.
    #[track_caller]
    pub fn next(&mut self, section: &str) -> String {
        let next = self
            .blocks
            .iter_mut()
            .find(|block| !block.is_taken && block.section == section);
        let Some(block) = next else {
            panic!("{}: no block is left in the section {section:?}", self.name);
        };
        block.is_taken = true;
        block.text.clone()
    }

    /// Takes all blocks of the section with this heading that are left. Fails the test if there is none.
    #[track_caller]
    pub fn rest(&mut self, section: &str) -> Vec<String> {
        let mut rest = vec![self.next(section)];
        let is_left = |block: &&mut Block| !block.is_taken && block.section == section;
        for block in self.blocks.iter_mut().filter(is_left) {
            block.is_taken = true;
            rest.push(block.text.clone());
        }
        rest
    }

    /// Fails the test if a block was not taken: every command in a guide must run.
    #[track_caller]
    pub fn assert_all_taken(&self) {
        let left = self.blocks.iter().find(|block| !block.is_taken);
        assert!(left.is_none(), "{}: no test runs {left:#?}", self.name);
    }
}
