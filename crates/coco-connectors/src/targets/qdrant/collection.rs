//! Creates the collection of a layout, and compares an existing one.

use std::collections::BTreeMap;

use qdrant_client::qdrant::vectors_config::Config;
use qdrant_client::qdrant::{
    CreateCollection, VectorParams, VectorParamsBuilder, VectorParamsMap, VectorsConfig,
};

use super::layout::{Layout, UNNAMED, Vector};

/// Returns the request that creates a collection. Except for the vectors, the server's defaults
/// apply.
pub fn create(name: &str, layout: &Layout) -> CreateCollection {
    let params = |v: &Vector| VectorParamsBuilder::new(v.size, v.distance).build();
    let config = match layout.vectors.values().find(|v| v.is_unnamed()) {
        Some(vector) => Config::Params(params(vector)),
        None => {
            let named = layout.vectors.values().map(|v| (v.name.clone(), params(v)));
            Config::ParamsMap(VectorParamsMap { map: named.collect() })
        }
    };
    CreateCollection {
        collection_name: name.to_owned(),
        vectors_config: Some(VectorsConfig { config: Some(config) }),
        ..CreateCollection::default()
    }
}

/// Returns the difference between a collection's vectors and the layout, as a sentence, or `None`
/// if they fit. The collection may have additional vectors.
pub fn difference(layout: &Layout, found: Option<&VectorsConfig>) -> Option<String> {
    let found: BTreeMap<&str, &VectorParams> = match found.and_then(|f| f.config.as_ref()) {
        None => BTreeMap::new(),
        Some(Config::Params(params)) => BTreeMap::from([(UNNAMED, params)]),
        Some(Config::ParamsMap(named)) => {
            named.map.iter().map(|(name, params)| (name.as_str(), params)).collect()
        }
    };
    layout.vectors.values().find_map(|vector| match found.get(vector.name.as_str()) {
        Some(params) => vector_difference(vector, params),
        None => {
            let all: Vec<String> = found.keys().map(|name| called(name)).collect();
            let all = if all.is_empty() { "no vectors at all".to_owned() } else { all.join(", ") };
            Some(format!("It has no {}, but {all}.", called(&vector.name)))
        }
    })
}

fn vector_difference(vector: &Vector, found: &VectorParams) -> Option<String> {
    let called = called(&vector.name);
    if found.multivector_config.is_some() {
        return Some(format!("Its {called} is a multivector."));
    }
    if found.size != vector.size {
        let (there, here) = (found.size, vector.size);
        return Some(format!("Its {called} has {there} dimensions, the column has {here}."));
    }
    if found.distance() != vector.distance {
        let (there, here) = (found.distance().as_str_name(), vector.distance.as_str_name());
        return Some(format!("The distance of its {called} is {there}, not {here}."));
    }
    None
}

fn called(name: &str) -> String {
    match name {
        UNNAMED => "unnamed vector".to_owned(),
        name => format!("vector \"{name}\""),
    }
}

#[cfg(test)]
mod tests {
    use qdrant_client::qdrant::{Distance, MultiVectorComparator, MultiVectorConfigBuilder};

    use super::*;
    use crate::targets::qdrant::point_id::Naming;

    fn layout(vectors: &[(&str, u64, Distance)]) -> Layout {
        let vectors = vectors.iter().enumerate().map(|(place, (name, size, distance))| {
            (place, Vector { name: (*name).to_owned(), size: *size, distance: *distance })
        });
        Layout { naming: Naming::Derived, vectors: vectors.collect() }
    }

    fn differs(asked: &[(&str, u64, Distance)], there: &[(&str, u64, Distance)]) -> Option<String> {
        difference(&layout(asked), create("docs", &layout(there)).vectors_config.as_ref())
    }

    #[test]
    fn a_collection_fits_what_it_was_made_for_and_what_needs_less() {
        use Distance::{Cosine, Dot};
        let one = [("", 3, Cosine)];
        assert_eq!(differs(&one, &one), None);
        let two = [("a", 3, Cosine), ("b", 4, Dot)];
        assert_eq!(differs(&two, &two), None);
        assert_eq!(differs(&two[..1], &two), None);
    }

    #[test]
    fn what_differs_is_named() {
        use Distance::{Cosine, Dot};
        let says = |asked: (&str, u64, Distance), there| differs(&[asked], &[there]);
        assert_eq!(
            says(("", 3, Cosine), ("", 4, Cosine)).as_deref(),
            Some("Its unnamed vector has 4 dimensions, the column has 3.")
        );
        assert_eq!(
            says(("a", 3, Cosine), ("a", 3, Dot)).as_deref(),
            Some("The distance of its vector \"a\" is Dot, not Cosine.")
        );
        assert_eq!(
            says(("", 3, Cosine), ("a", 3, Cosine)).as_deref(),
            Some("It has no unnamed vector, but vector \"a\".")
        );
        let one = layout(&[("", 3, Cosine)]);
        assert_eq!(
            difference(&one, None).as_deref(),
            Some("It has no unnamed vector, but no vectors at all.")
        );
        let multi = MultiVectorConfigBuilder::new(MultiVectorComparator::MaxSim);
        let multi = VectorParamsBuilder::new(3, Cosine).multivector_config(multi).build();
        let multi = VectorsConfig { config: Some(Config::Params(multi)) };
        assert_eq!(
            difference(&one, Some(&multi)).as_deref(),
            Some("Its unnamed vector is a multivector.")
        );
    }
}
